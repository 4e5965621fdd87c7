/* RV32 in QEMU's `virt` machine: UART, test finisher, and the counter of retired instructions. */
#include "board.h"

#define UART (*(volatile uint8_t *)0x10000000)
#define FINISHER (*(volatile uint32_t *)0x100000)

__attribute__((naked, section(".vectors"), used)) void reset(void)
{
    __asm__ volatile("la sp, stack_top\n"
                     "la t0, bss_start\n"
                     "la t1, bss_end\n"
                     "1: bgeu t0, t1, 2f\n"
                     "sw zero, 0(t0)\n"
                     "addi t0, t0, 4\n"
                     "j 1b\n"
                     "2: call main\n"
                     "3: j 3b\n");
}

void board_start(void)
{
}

uint32_t board_clock(void)
{
    uint32_t count;
    __asm__ volatile(".option push\n.option arch, +zicsr\ncsrr %0, minstret\n.option pop" : "=r"(count));
    return count;
}

uint32_t board_scaled(uint32_t ticks)
{
    return ticks;
}

void board_print(const char *text)
{
    while (*text) {
        UART = (uint8_t)*text++;
    }
}

void board_exit(int status)
{
    FINISHER = status ? (uint32_t)status << 16 | 0x3333 : 0x5555;
    for (;;) {
    }
}
