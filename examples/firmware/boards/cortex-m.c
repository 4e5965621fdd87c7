/* Any Cortex-M in QEMU: console and end by semihosting, SysTick as clock. Under `-icount shift=0` an instruction takes
   a nanosecond, so that CLOCK_HZ, the rate of SysTick, turns ticks into instructions. */
#include "board.h"

#define SYST_CSR (*(volatile uint32_t *)0xE000E010)
#define SYST_RVR (*(volatile uint32_t *)0xE000E014)
#define SYST_CVR (*(volatile uint32_t *)0xE000E018)

extern uint32_t data_start[], data_end[], data_load[], bss_start[], bss_end[];
extern uint8_t stack_top[];
int main(void);

static int semihosting(int call, const void *argument)
{
    register int r0 __asm__("r0") = call;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

void reset(void)
{
    const uint32_t *from = data_load;
    for (uint32_t *to = data_start; to < data_end;) {
        *to++ = *from++;
    }
    for (uint32_t *to = bss_start; to < bss_end;) {
        *to++ = 0;
    }
    main();
}

static void fault(void)
{
    board_print("fault\n");
    board_exit(1);
}

__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    stack_top, (const void *)reset, (const void *)fault, (const void *)fault,
};

void board_start(void)
{
    SYST_RVR = 0xFFFFFF;
    SYST_CVR = 0;
    SYST_CSR = 5; /* on, by the processor's clock */
}

uint32_t board_clock(void)
{
    return (0xFFFFFFu - SYST_CVR) & 0xFFFFFFu;
}

uint32_t board_scaled(uint32_t ticks)
{
    return ticks * (1000000000u / (CLOCK_HZ / 2)) / 2;
}

void board_print(const char *text)
{
    semihosting(0x04, text);
}

void board_exit(int status)
{
    const uint32_t arguments[2] = {0x20026, (uint32_t)status}; /* ADP_Stopped_ApplicationExit */
    semihosting(0x20, arguments);
    semihosting(0x18, (const void *)(status ? 0x20023 : 0x20026)); /* where the extended call is not known */
    for (;;) {
    }
}
