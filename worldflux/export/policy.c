/* $title

   One step of acting, in C99 with no library but math.h. To compile and link it:

       cc -O3 -march=native -c $name.c && cc your_program.c $name.o -lm

   To use it, declare what is below "Interface", or include this file:

       worldflux_memory memory;
       worldflux_reset(&memory);                  before the first step of each episode
       worldflux_step($call, &memory);

   Every number is a float: whole numbers too. An agent in a thread needs its own memory, nothing is
   shared. A test program reads lines of "1 OBSERVATION" for the first step of an episode and
   "0 OBSERVATION" for the others, and prints an action for each:

       cc -O3 -march=native -DWORLDFLUX_MAIN $name.c -o $name -lm
*/

#include <math.h>
#include <string.h>
#include <tgmath.h>

/* Interface */

typedef struct {
$memory
    float is_first; /* 1 before the first step of an episode */
} worldflux_memory;

void worldflux_reset(worldflux_memory *memory);
void worldflux_step($parameters, worldflux_memory *memory);

/* Arithmetic */

static inline float at_least(float x, float low) { return x < low ? low : x; }
static inline float at_most(float x, float high) { return x > high ? high : x; }
static inline float square(float x) { return x * x; }
static inline float sigmoid(float x) { return 1 / (1 + exp(-x)); }
static inline float sign(float x) { return (float)((x > 0) - (x < 0)); }

/* out [batches, rows, columns] += left [batches, rows, inner] right [batches, inner, columns] */
static inline void product(float *restrict out, const float *restrict left, const float *restrict right,
                           int batches, int rows, int inner, int columns)
{
    for (int batch = 0; batch < batches; batch++, right += inner * columns) {
        for (int row = 0; row < rows; row++, left += inner, out += columns) {
            const float *w = right;
            int k = 0;
            for (; k + 4 <= inner; k += 4, w += 4 * columns) {
                const float a = left[k], b = left[k + 1], c = left[k + 2], d = left[k + 3];
                const float *x = w + columns, *y = x + columns, *z = y + columns;
                for (int n = 0; n < columns; n++)
                    out[n] += a * w[n] + b * x[n] + c * y[n] + d * z[n];
            }
            for (; k < inner; k++, w += columns)
                for (int n = 0; n < columns; n++)
                    out[n] += left[k] * w[n];
        }
    }
}

/* Weights */

$weights

/* The network */

static void network($arguments)
{
$arrays

$statements
}

void worldflux_reset(worldflux_memory *memory)
{
    memset(memory, 0, sizeof *memory);
    memory->is_first = 1;
}

void worldflux_step($parameters, worldflux_memory *memory)
{
    worldflux_memory next;
    network($passed);
    next.is_first = 0;
    *memory = next;
}

#ifdef WORLDFLUX_MAIN
#include <stdio.h>

static int read_numbers(float *numbers, int count)
{
    for (int i = 0; i < count; i++)
        if (scanf("%f", numbers + i) != 1) {
            fputs("an observation is too short: each line is \"1 OBSERVATION\" for the first step of an"
                  " episode and \"0 OBSERVATION\" for the others\n", stderr);
            return 0;
        }
    return 1;
}

int main(void)
{
    worldflux_memory memory;
    float is_first, $locals;
    worldflux_reset(&memory);
    while (scanf("%f", &is_first) == 1) {
        if (is_first != 0)
            worldflux_reset(&memory);
        if ($reading)
            return 1;
        worldflux_step($call, &memory);
        for (int i = 0; i < $actions; i++)
            printf("%.9g%c", (double)action[i], i + 1 < $actions ? ' ' : '\n');
    }
    return 0;
}
#endif
