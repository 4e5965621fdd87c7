/* Classifies the embedded images, row by row as a camera would give them, and prints what it took.

   The board gives the clock, the console and the end of the program (board.h); all else is the same on every chip. */
#include "board.h"
#include "images.h"
#include "model.h"

#define PAINT 0xA5

/* Symbols of the linker script: the free memory between static data and the top of the stack. */
extern uint8_t stack_bottom[];
extern uint8_t stack_top[];

static void print_number(uint32_t value)
{
    char digits[11];
    uint8_t n = sizeof digits - 1;
    digits[n] = 0;
    do {
        digits[--n] = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    board_print(digits + n);
}

static void paint_stack(void)
{
    const uint8_t *const here = (const uint8_t *)__builtin_frame_address(0) - 64;
    for (uint8_t *p = stack_bottom; p < here; p++) {
        *(volatile uint8_t *)p = PAINT;
    }
}

/* How much of the stack was ever written to. */
static uint32_t stack_bytes(void)
{
    const uint8_t *p = stack_bottom;
    while (p < stack_top && *p == PAINT) {
        p++;
    }
    return (uint32_t)(stack_top - p);
}

static void feed(uint8_t image, int32_t *logits)
{
    uint8_t row[MODEL_INPUT_CHANNELS * MODEL_INPUT_WIDTH];
    for (uint16_t y = 0; y < MODEL_INPUT_HEIGHT; y++) {
        for (uint16_t x = 0; x < sizeof row; x++) {
            const uint16_t plane = (uint16_t)(x / MODEL_INPUT_WIDTH), column = (uint16_t)(x % MODEL_INPUT_WIDTH);
            row[x] = image_byte(image, (uint16_t)((plane * MODEL_INPUT_HEIGHT + y) * MODEL_INPUT_WIDTH + column));
        }
        model_push_row(row, logits);
    }
}

int main(void)
{
    int32_t logits[MODEL_CLASSES];
    uint32_t spent = 0;
    uint16_t wrong = 0;
    board_start();
    paint_stack();
    for (uint8_t i = 0; i < IMAGES; i++) {
        uint8_t best = 0;
        const uint32_t begin = board_clock();
        feed(i, logits);
        spent += (board_clock() - begin) & CLOCK_MASK;
        for (uint8_t k = 0; k < MODEL_CLASSES; k++) {
            wrong = (uint16_t)(wrong + (logits[k] != image_logit(i, k)));
            best = logits[k] > logits[best] ? k : best;
        }
        board_print_text("image ");
        print_number(i);
        board_print_text(": class ");
        print_number(best);
        board_print_text("\n");
    }
    board_print_text("wrong_logits ");
    print_number(wrong);
    board_print_text("\n" BOARD_UNIT "_an_image ");
    print_number(board_scaled(spent / IMAGES));
    board_print_text("\nstack_bytes ");
    print_number(stack_bytes());
    board_print_text("\n");
    board_exit(wrong > 0);
    return wrong > 0;
}
