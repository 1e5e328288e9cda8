/* Keeps the 3 most relevant of 8 rows and prints them: visual row i points along axis i, the two
 * words along 2 and 5. Then the sums of the gathered rows, each of which is 1, and the library's
 * version. */
#include <stdio.h>

#include "mipruner/mipruner.h"

enum { kRows = 8, kKept = 3 };

int32_t abi_of_the_header(void); /* header_alone.c */

static mipruner_view view_of(const float* rows, int64_t n_rows) {
  mipruner_view view = {NULL, 0, kRows, 0, MIPRUNER_DTYPE_F32, MIPRUNER_MEMORY_HOST};
  view.data = rows;
  view.n_rows = n_rows;
  return view;
}

/* Fills kept; returns the status. */
static int32_t choose(mipruner_context* context, const float* image, int32_t* kept) {
  float words[2 * kRows] = {0}; /* [2, kRows] */
  words[2] = words[kRows + 5] = 1;
  const mipruner_view visual = view_of(image, kRows);
  const mipruner_view text = view_of(words, 2);
  mipruner_select_params params = mipruner_select_default_params();
  params.n_keep = kKept;
  params.redundancy = 0;
  params.coverage = 0;
  return mipruner_select(context, &visual, &text, &params, kept, kKept, NULL, NULL);
}

static void print_kept(float* image, const int32_t* kept) {
  int k, i;
  if (mipruner_gather_rows(image, image, kRows, kRows * sizeof(float), 0, kept, kKept) < 0) return;
  for (k = 0; k < kKept; ++k) {
    float sum = 0;
    for (i = 0; i < kRows; ++i) sum += image[k * kRows + i];
    printf("%d:%g ", (int)kept[k], sum);
  }
  printf("%s\n", mipruner_version());
}

int main(void) {
  float image[kRows * kRows] = {0}; /* [kRows, kRows] */
  int32_t kept[kKept];
  mipruner_context* context = NULL;
  int i;
  for (i = 0; i < kRows; ++i) image[i * kRows + i] = 1;
  if (mipruner_abi_version() != abi_of_the_header() || mipruner_init(NULL, &context) < 0) {
    fprintf(stderr, "%s\n", mipruner_last_error(NULL));
    return 1;
  }
  if (choose(context, image, kept) < 0) {
    fprintf(stderr, "%s\n", mipruner_last_error(context));
    mipruner_free(context);
    return 1;
  }
  print_kept(image, kept);
  mipruner_free(context);
  return 0;
}
