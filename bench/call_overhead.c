/* Times mipruner_select on small inputs: bench_c_api.py compiles and runs this.
 *
 *     call_overhead ROWS COLUMNS WORDS KEEP    prints microseconds per call, the median of batches
 *
 * By relevance alone, which is the least work, so that the call itself shows.
 */
#include <mipruner/mipruner.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { BATCHES = 21, CALLS = 500 };

static double now_us(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return 1e6 * (double)time.tv_sec + 1e-3 * (double)time.tv_nsec;
}

static float* random_rows(long count) {
  float* rows = malloc((size_t)count * sizeof *rows);
  if (!rows) exit(1);
  for (long i = 0; i < count; ++i) rows[i] = (float)rand() / (float)RAND_MAX - 0.5f;
  return rows;
}

static int ascending(const void* a, const void* b) {
  const double x = *(const double*)a, y = *(const double*)b;
  return (x > y) - (x < y);
}

int main(int argc, char** argv) {
  if (argc != 5) {
    fprintf(stderr, "usage: call_overhead ROWS COLUMNS WORDS KEEP\n");
    return 2;
  }
  const long rows = atol(argv[1]), columns = atol(argv[2]), words = atol(argv[3]);
  const mipruner_view visual = {random_rows(rows * columns), rows, columns, 0, 0, 0};
  const mipruner_view text = {random_rows(words * columns), words, columns, 0, 0, 0};
  mipruner_select_params params = mipruner_select_default_params();
  params.n_keep = (int32_t)atol(argv[4]);
  params.redundancy = 0;
  params.coverage = 0;
  int32_t* kept = malloc((size_t)rows * sizeof *kept);
  mipruner_context* context = NULL;
  if (!kept || mipruner_init(NULL, &context) < 0) return 1;

  double batch_us[BATCHES];
  for (int batch = -1; batch < BATCHES; ++batch) { /* the first warms up */
    const double start = now_us();
    for (int call = 0; call < CALLS; ++call) {
      const int32_t status =
          mipruner_select(context, &visual, &text, &params, kept, (int32_t)rows, NULL, NULL);
      if (status < 0) {
        fprintf(stderr, "%s\n", mipruner_last_error(context));
        return 1;
      }
    }
    if (batch >= 0) batch_us[batch] = (now_us() - start) / CALLS;
  }
  qsort(batch_us, BATCHES, sizeof *batch_us, ascending);
  printf("%.3f\n", batch_us[BATCHES / 2]);
  mipruner_free(context);
  free((void*)visual.data);
  free((void*)text.data);
  free(kept);
  return 0;
}
