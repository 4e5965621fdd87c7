/* ATmega328p: the serial port, which simavr prints, and timer 1 at a 1024th of the clock. */
#include <avr/interrupt.h>
#include <avr/io.h>
#include <avr/sleep.h>

#include "board.h"

void board_start(void)
{
    UCSR0B = 1 << TXEN0;
    TCCR1B = 1 << CS12 | 1 << CS10;
}

uint32_t board_clock(void)
{
    return TCNT1;
}

uint32_t board_scaled(uint32_t ticks)
{
    return ticks << 10;
}

static void put(char letter)
{
    while (!(UCSR0A & 1 << UDRE0)) {
    }
    UDR0 = (uint8_t)letter;
}

void board_print(const char *text)
{
    while (*text) {
        put(*text++);
    }
}

void board_print_flash(const char *text)
{
    for (char letter = (char)pgm_read_byte(text); letter; letter = (char)pgm_read_byte(++text)) {
        put(letter);
    }
}

/* Asleep without interrupts, nothing can wake it: simavr ends there. */
void board_exit(int status)
{
    (void)status;
    cli();
    sleep_enable();
    for (;;) {
        sleep_cpu();
    }
}
