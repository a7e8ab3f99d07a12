// The part of llama.cpp's C interface that this package calls, in our own words: the real header lies in another module,
// which #cgo include paths cannot name. Matches github.com/ollama/ollama v0.17.4 exactly; abi_test.go compares every
// size, offset and constant with the real one, so run it after any change of that version.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct llama_model;
struct llama_context;
struct llama_vocab;
struct llama_sampler;
struct llama_memory_i;

struct llama_model_params {
    void *devices;
    const void *tensor_buft_overrides;
    int32_t n_gpu_layers;
    int split_mode;
    int32_t main_gpu;
    const float *tensor_split;
    void *progress_callback;
    void *progress_callback_user_data;
    const void *kv_overrides;
    bool vocab_only, use_mmap, use_mlock, check_tensors, use_extra_bufts, no_host, no_alloc;
};

struct llama_context_params {
    uint32_t n_ctx, n_batch, n_ubatch, n_seq_max;
    int32_t n_threads, n_threads_batch;
    int rope_scaling_type, pooling_type, attention_type, flash_attn_type;
    float rope_freq_base, rope_freq_scale, yarn_ext_factor, yarn_attn_factor, yarn_beta_fast, yarn_beta_slow;
    uint32_t yarn_orig_ctx;
    float defrag_thold;
    void *cb_eval;
    void *cb_eval_user_data;
    int type_k, type_v;
    void *abort_callback;
    void *abort_callback_data;
    bool embeddings, offload_kqv, no_perf, op_offload, swa_full, kv_unified;
};

struct llama_batch {
    int32_t n_tokens;
    int32_t *token;
    float *embd;
    int32_t *pos;
    int32_t *n_seq_id;
    int32_t **seq_id;
    int8_t *logits;
};

typedef struct llama_token_data {
    int32_t id;
    float logit;
    float p;
} llama_token_data;

typedef struct llama_token_data_array {
    llama_token_data *data;
    size_t size;
    int64_t selected;
    bool sorted;
} llama_token_data_array;

enum {
    LLAMA_TOKEN_ATTR_UNKNOWN = 1 << 0,
    LLAMA_TOKEN_ATTR_UNUSED = 1 << 1,
    LLAMA_TOKEN_ATTR_CONTROL = 1 << 3,
    LLAMA_POOLING_TYPE_NONE = 0,
};

void llama_log_set(void (*callback)(int level, const char *text, void *user), void *user);
void llama_backend_init(void);

struct llama_model_params llama_model_default_params(void);
struct llama_model *llama_model_load_from_file(const char *path, struct llama_model_params);
void llama_model_free(struct llama_model *);
const struct llama_vocab *llama_model_get_vocab(const struct llama_model *);
int32_t llama_model_meta_val_str(const struct llama_model *, const char *key, char *buf, size_t size);
int32_t llama_model_desc(const struct llama_model *, char *buf, size_t size);
uint64_t llama_model_n_params(const struct llama_model *);
int32_t llama_model_n_ctx_train(const struct llama_model *);
int32_t llama_model_n_embd(const struct llama_model *);

int32_t llama_vocab_n_tokens(const struct llama_vocab *);
int llama_vocab_get_attr(const struct llama_vocab *, int32_t token);
const char *llama_vocab_get_text(const struct llama_vocab *, int32_t token);
bool llama_vocab_is_eog(const struct llama_vocab *, int32_t token);
int32_t llama_tokenize(const struct llama_vocab *, const char *text, int32_t text_len, int32_t *tokens, int32_t max,
                       bool add_special, bool parse_special);
int32_t llama_token_to_piece(const struct llama_vocab *, int32_t token, char *buf, int32_t size, int32_t lstrip,
                             bool special);

struct llama_context_params llama_context_default_params(void);
struct llama_context *llama_init_from_model(struct llama_model *, struct llama_context_params);
void llama_free(struct llama_context *);
uint32_t llama_n_ctx_seq(const struct llama_context *);
struct llama_memory_i *llama_get_memory(const struct llama_context *);
void llama_memory_clear(struct llama_memory_i *, bool data);
bool llama_memory_seq_rm(struct llama_memory_i *, int32_t seq, int32_t p0, int32_t p1);
struct llama_batch llama_batch_init(int32_t n_tokens, int32_t embd, int32_t n_seq_max);
void llama_batch_free(struct llama_batch);
int32_t llama_decode(struct llama_context *, struct llama_batch);
float *llama_get_logits_ith(struct llama_context *, int32_t i);
float *llama_get_embeddings_ith(struct llama_context *, int32_t i);

struct llama_sampler *llama_sampler_init_grammar(const struct llama_vocab *, const char *grammar, const char *root);
void llama_sampler_apply(struct llama_sampler *, llama_token_data_array *);
void llama_sampler_accept(struct llama_sampler *, int32_t token);
void llama_sampler_free(struct llama_sampler *);

int64_t ggml_blck_size(int type);
size_t ggml_type_size(int type);
