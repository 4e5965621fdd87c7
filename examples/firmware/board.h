/* What main.c asks of a board; boards/NAME.c gives it. */
#ifndef BOARD_H
#define BOARD_H

#include <stdint.h>

#ifdef __AVR__
#include <avr/pgmspace.h>
#define FLASH PROGMEM
#define flash_8(p) pgm_read_byte(p)
#define flash_32(p) pgm_read_dword(p)
#define BOARD_UNIT "cycles"
#define CLOCK_MASK 0xFFFFu
#define board_print_text(text) board_print_flash(PSTR(text))
void board_print_flash(const char *text);
#else
#define FLASH
#define flash_8(p) (*(p))
#define flash_32(p) (*(p))
#define BOARD_UNIT "instructions"
#ifdef __arm__
#define CLOCK_MASK 0xFFFFFFu /* SysTick has 24 bits */
#else
#define CLOCK_MASK 0xFFFFFFFFu
#endif
#define board_print_text(text) board_print(text)
#endif

void board_start(void);
uint32_t board_clock(void);                /* ticks, counting up; begins again after CLOCK_MASK */
uint32_t board_scaled(uint32_t ticks);     /* ticks as BOARD_UNIT */
void board_print(const char *text);
void board_exit(int status);               /* 0 where all is well; does not return */

#endif
