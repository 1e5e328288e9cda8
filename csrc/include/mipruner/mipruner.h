/* mipruner: which rows of an image carry information about the question.
 *
 * The C interface, for inference engines: C99, no dependency on torch, Python, CUDA or C++ headers.
 * A multimodal LLM turns an image into hundreds or thousands of embedding rows; these functions
 * choose the K rows that share the most mutual information with the embeddings of the question's
 * words, before the LLM runs. The method is that of Li, Tiulpin and Blaschko, "MI-Pruner" (arXiv
 * 2604.03072); its equations were reconstructed from the paper's abstract and summaries.
 *
 *     mipruner_context_params context_params = mipruner_context_default_params();
 *     mipruner_context *context = NULL;
 *     if (mipruner_init(&context_params, &context) < 0) ...;    mipruner_last_error(NULL) says why
 *     mipruner_select_params params = mipruner_select_default_params();
 *     params.n_keep = 64;
 *     mipruner_view visual = {rows, 576, 4096, 0, MIPRUNER_DTYPE_F32, MIPRUNER_MEMORY_HOST};
 *     mipruner_view text = {words, 12, 4096, 0, MIPRUNER_DTYPE_F32, MIPRUNER_MEMORY_HOST};
 *     int32_t kept[64];
 *     if (mipruner_select(context, &visual, &text, &params, kept, 64, NULL, NULL) < 0) ...;
 *     mipruner_free(context);
 *
 * Status. Every function that can fail returns an int32_t: 0 is success, above 0 a warning beside a
 * valid result, below 0 an error, and then nothing was written to any output. The message names
 * the argument, what was given and what is allowed. No exception, abort or exit leaves a function;
 * none may leave a callback.
 *
 * Threads. One context serves one thread at a time; different contexts are independent. The
 * functions without a context may be called from anywhere at any time.
 *
 * Memory. The caller owns every buffer. Inputs are only read, and must not overlap outputs except
 * where a function says so.
 *
 * Determinism. The same inputs give the same bits on the same machine, whatever n_threads is.
 */
#ifndef MIPRUNER_MIPRUNER_H
#define MIPRUNER_MIPRUNER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Raised only when a program compiled against an older header would no longer run: functions,
 * enumerators and struct members are only ever added, members at the end. It is the shared
 * library's soname. */
#define MIPRUNER_ABI_VERSION 1

#if defined(__GNUC__)
#define MIPRUNER_API __attribute__((visibility("default")))
#else
#define MIPRUNER_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- status ---- */

enum mipruner_status {
  MIPRUNER_OK = 0,
  /* Every row was kept: as many or more were asked for, or there are no more than min_tokens. */
  MIPRUNER_KEPT_ALL = 1,
  /* The result is valid, but the rows could not be told apart as they should: some hold NaN or Inf
   * (result.n_not_finite of them, kept only where too few others exist), or all relevances are
   * equal, as with a text of zero rows, so that they decided nothing. */
  MIPRUNER_DEGENERATE = 2,
  MIPRUNER_ERROR_INVALID_ARGUMENT = -1,
  MIPRUNER_ERROR_OUT_OF_MEMORY = -2, /* also: the call needs more than max_workspace */
  MIPRUNER_ERROR_BUFFER_TOO_SMALL = -3,
  MIPRUNER_ERROR_NOT_SUPPORTED = -4, /* not in this build, or by this function */
  MIPRUNER_ERROR_BACKEND = -5, /* a failing CUDA call; outputs in device memory are undefined */
  MIPRUNER_ERROR_ABORTED = -6, /* the abort callback returned true */
  MIPRUNER_ERROR_INTERNAL = -7 /* a fault of this library's own */
};

/* ---- choices ---- */

/* Element types. The values are ggml's. Everything is accumulated in float32. */
enum mipruner_dtype { MIPRUNER_DTYPE_F32 = 0, MIPRUNER_DTYPE_F16 = 1, MIPRUNER_DTYPE_BF16 = 30 };

enum mipruner_memory {
  MIPRUNER_MEMORY_HOST = 0,
  MIPRUNER_MEMORY_DEVICE = 1 /* CUDA memory of the context's device */
};

enum mipruner_backend {
  MIPRUNER_BACKEND_AUTO = 0, /* CUDA where this library has it and finds a device, else the CPU */
  MIPRUNER_BACKEND_CPU = 1,
  MIPRUNER_BACKEND_CUDA = 2 /* host views are still worked on by the CPU: nothing is copied over */
};

/* How similarities become a relevance in nats; the formulas are in the README's "What it computes"
 * and in mi_pruner_cuda/reference.py. */
enum mipruner_estimator {
  MIPRUNER_ESTIMATOR_DEFAULT = 0,   /* SPECIFIC */
  MIPRUNER_ESTIMATOR_SPECIFIC = 1,  /* I(v; T) = D_KL(P(T | v) || P(T)) */
  MIPRUNER_ESTIMATOR_POSTERIOR = 2, /* softmax over the visual rows */
  MIPRUNER_ESTIMATOR_JOINT = 3,     /* one softmax over the whole table */
  MIPRUNER_ESTIMATOR_COSINE = 4     /* the largest cosine, the plain baseline; not in nats */
};

enum mipruner_order {
  MIPRUNER_ORDER_ASCENDING = 0, /* by index, which is what KV caches need */
  MIPRUNER_ORDER_SCORE = 1      /* by relevance, the best first, ties by index */
};

/* ---- structs ---- */

typedef struct mipruner_context mipruner_context;

/* A matrix of the caller's. Device memory must stay valid until the stream has passed the call. */
typedef struct mipruner_view {
  const void* data;   /* aligned to its element size; may be NULL when n_rows is 0 */
  int64_t n_rows;     /* tokens, at most 2^31 - 1 */
  int64_t n_cols;     /* the columns that are scored, n_embd, at least 1 */
  int64_t row_stride; /* elements from one row to the next, at least n_cols, as
                         llama_model_n_embd_inp() for DeepStack rows; 0: n_cols */
  int32_t dtype;      /* enum mipruner_dtype */
  int32_t memory;     /* enum mipruner_memory */
} mipruner_view;

/* Called between pieces of work, on the thread that called the library; true ends the call with
 * MIPRUNER_ERROR_ABORTED. Not called once work is on a CUDA device. */
typedef bool (*mipruner_abort_callback)(void* user_data);

typedef struct mipruner_context_params {
  size_t struct_size;     /* set by mipruner_context_params_init() */
  int32_t backend;        /* enum mipruner_backend; default AUTO */
  int32_t device_id;      /* CUDA ordinal; default 0 */
  int32_t n_threads;      /* CPU threads of one call, 1 to 1024; default 1. They live within it */
  int32_t reserved;       /* 0 */
  uint64_t max_workspace; /* bytes of scratch memory a call may need, its lists of kept rows (16
                             bytes each) aside; default 0: no limit */
  mipruner_abort_callback abort_callback; /* default NULL */
  void* abort_user_data;
} mipruner_context_params;

typedef struct mipruner_select_params {
  size_t struct_size; /* set by mipruner_select_params_init() */
  double keep_ratio;  /* (0, 1], used where n_keep is 0; default 0.25. A double, so that it keeps
                         exactly what keep_count keeps in Python */
  int32_t n_keep;     /* > 0: exactly so many rows; default 0 */
  int32_t min_tokens; /* images of at most so many rows are kept whole; default 0 */
  int32_t estimator;  /* enum mipruner_estimator */
  int32_t order;      /* enum mipruner_order */
  float temperature;  /* > 0, divides the cosines; default 0.1 */
  float redundancy;   /* lambda >= 0, default 1: rows are chosen one by one, and what a row
                         shares with those chosen counts against it. 0, with coverage 0 as well,
                         is the top K by relevance */
  const int32_t* always_keep; /* rows that survive whatever they score (row breaks, begin and end of
                                 image), as part of the K; host memory; repeats count once */
  int64_t n_always_keep;
  void* stream; /* cudaStream_t for device views; default NULL: the default stream */
  /* In [0, 1], default 0.25. Of the k rows chosen besides always_keep, floor(coverage * k + 0.5)
   * are spread evenly over the rows to choose from (not in always_keep, without NaN or Inf): one of
   * each of so many equal runs, whatever they hold, so that a small budget keeps something of the
   * whole scene. The others are chosen as without it; with redundancy, what they share with the
   * spread ones counts against them. */
  double coverage;
} mipruner_select_params;

typedef struct mipruner_result {
  size_t struct_size; /* set by the caller to sizeof(mipruner_result) */
  uint64_t keep_hash; /* mipruner_keep_hash() of the kept rows: part of a prefix cache's key,
                         because what is kept depends on the question */
  uint64_t workspace; /* bytes of scratch memory that the call used */
  int32_t n_rows;
  int32_t n_keep;
  int32_t n_not_finite; /* visual rows with NaN or Inf; -1 where nothing was scored */
  float t_ms;           /* wall time of the call in milliseconds */
} mipruner_result;

/* ---- the library ---- */

MIPRUNER_API const char* mipruner_version(void); /* "major.minor.patch" */
MIPRUNER_API int32_t mipruner_abi_version(void); /* of the library; the header's is the macro */

/* Whether this library has kernels for the three; says nothing of a device's presence. */
MIPRUNER_API bool mipruner_supports(int32_t backend, int32_t dtype, int32_t estimator);

/* One sentence for a status; never NULL. */
MIPRUNER_API const char* mipruner_status_str(int32_t status);

/* levels: 1 debug, 2 info, 3 warning; errors are statuses. `text` is one line with its newline. */
typedef void (*mipruner_log_callback)(int32_t level, const char* text, void* user_data);

/* For the whole process; NULL: warnings to stderr, as at the start. The callback may be
 * called from any thread that calls the library, and must not call it back. */
MIPRUNER_API void mipruner_log_set(mipruner_log_callback callback, void* user_data);

/* ---- parameters ---- */

/* Sets the first `size` bytes of `params` to the defaults of the library in use, struct_size
 * included, so that programs and libraries of different age agree on what is there. A program of
 * the first release, whose select params had no coverage, gets that release's: redundancy 0 and
 * none (but where it passes NULL, which tells nothing of its age). A size that no version ever had
 * leaves struct_size 0, which every function refuses. */
MIPRUNER_API void mipruner_context_params_init(mipruner_context_params* params, size_t size);
MIPRUNER_API void mipruner_select_params_init(mipruner_select_params* params, size_t size);

static inline mipruner_context_params mipruner_context_default_params(void) {
  mipruner_context_params params;
  mipruner_context_params_init(&params, sizeof params);
  return params;
}

static inline mipruner_select_params mipruner_select_default_params(void) {
  mipruner_select_params params;
  mipruner_select_params_init(&params, sizeof params);
  return params;
}

/* ---- contexts ---- */

/* params: NULL for the defaults. *context is NULL after an error. */
MIPRUNER_API int32_t mipruner_init(const mipruner_context_params* params,
                                   mipruner_context** context);
MIPRUNER_API void mipruner_free(mipruner_context* context); /* NULL is allowed */

/* What went wrong in the last failing call with this context, or, for NULL, in the last failing
 * call without a context on this thread; "" if none failed. Valid until the next failing one. */
MIPRUNER_API const char* mipruner_last_error(const mipruner_context* context);

/* ---- budgets: known before anything is encoded ---- */

/* min(n, max(1, floor(ratio * n + 0.5))), the same in C, C++ and Python; ratio in (0, 1], n >= 0.
 * Below 0 for an error. */
MIPRUNER_API int64_t mipruner_keep_count(int64_t n, double ratio);

/* How many of n_rows rows a selection with these parameters keeps (NULL: with the defaults): the
 * size of idx_out. Below 0 for an error. */
MIPRUNER_API int32_t mipruner_n_keep(const mipruner_select_params* params, int64_t n_rows);

/* ---- selection ---- */

/* Chooses the rows of `visual` to keep. Waits until the result is there.
 *
 *   visual      [n_rows, n_cols], after the projector
 *   text        [words, n_cols], the token embeddings of the question, of the dtype and memory of
 *               visual. NULL or no rows: selection without text, by redundancy, which must be
 *               > 0 then, as it is by default, and coverage
 *   params      NULL for the defaults, coverage and redundancy among them: with both 0 the rows
 *               kept are the top K by relevance
 *   idx_out     host memory for idx_cap >= mipruner_n_keep() indices
 *   scores_out  NULL, or host memory for n_rows floats: relevance in nats, -inf for rows with NaN
 *               or Inf
 *   result      NULL, or filled up to its struct_size
 *
 * A row is kept or not independently of the number of threads. Ties go to the lower index. */
MIPRUNER_API int32_t mipruner_select(mipruner_context* context, const mipruner_view* visual,
                                     const mipruner_view* text,
                                     const mipruner_select_params* params, int32_t* idx_out,
                                     int32_t idx_cap, float* scores_out, mipruner_result* result);

/* The same for device views, enqueued on params->stream without waiting. idx_out: device memory for
 * idx_cap >= mipruner_n_keep() indices, as 64-bit integers; scores_out: NULL, or device memory for
 * n_rows floats. Only ascending order; always_keep is not supported. The context's scratch memory
 * is in use until the stream has passed the call: use one stream per context, and call once with
 * the largest sizes before a CUDA graph captures the call, because growing it allocates. */
MIPRUNER_API int32_t mipruner_select_async(mipruner_context* context, const mipruner_view* visual,
                                           const mipruner_view* text,
                                           const mipruner_select_params* params, int64_t* idx_out,
                                           int32_t idx_cap, float* scores_out);

/* A stable 64-bit hash (FNV-1a) of n_rows and the kept indices, ascending; 0 where they are NULL
 * without being none. */
MIPRUNER_API uint64_t mipruner_keep_hash(int64_t n_rows, const int32_t* idx, int32_t n_idx);

/* ---- the two moves that every engine needs afterwards ---- */

/* dst[k] = src[idx[k]] for rows of row_bytes bytes: embeddings, DeepStack planes. src has n_rows
 * rows src_stride bytes apart (0: row_bytes); dst is packed. dst may be src where idx ascends:
 * compaction in place. Any other overlap is an error. */
MIPRUNER_API int32_t mipruner_gather_rows(void* dst, const void* src, int64_t n_rows,
                                          size_t row_bytes, size_t src_stride, const int32_t* idx,
                                          int32_t n_idx);

/* The same on the context's device, enqueued on `stream`; idx as mipruner_select_async wrote it. An
 * index outside the rows gives a row of zero bytes. dst must not overlap src. */
MIPRUNER_API int32_t mipruner_gather_rows_async(mipruner_context* context, void* dst,
                                                const void* src, int64_t n_rows, size_t row_bytes,
                                                size_t src_stride, const int64_t* idx,
                                                int32_t n_idx, void* stream);

/* Section-major positions, src [n_sections][n] to dst [n_sections][n_idx]: llama_batch.pos with 1
 * or 4 sections, Hugging Face's position_ids with 3. dst may be src where idx ascends. */
MIPRUNER_API int32_t mipruner_gather_positions(int32_t* dst, const int32_t* src, int32_t n_sections,
                                               int64_t n, const int32_t* idx, int32_t n_idx);

#ifdef __cplusplus
}
#endif

#endif
