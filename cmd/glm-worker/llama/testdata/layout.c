// Prints the layout of every type that abi.h redeclares, from abi.h or (with -DREAL) from llama.cpp's own header.
#ifdef REAL
#include "llama.h"
#else
#include "abi.h"
#endif
#include <stdio.h>

#define SIZE(type) printf(#type " %zu\n", sizeof(type))
#define AT(type, field) printf(#type "." #field " %zu %zu\n", offsetof(type, field), sizeof(((type *)0)->field))
#define VALUE(name) printf(#name " %d\n", (int)(name))

int main(void) {
    SIZE(struct llama_model_params);
    AT(struct llama_model_params, devices);
    AT(struct llama_model_params, tensor_buft_overrides);
    AT(struct llama_model_params, n_gpu_layers);
    AT(struct llama_model_params, split_mode);
    AT(struct llama_model_params, main_gpu);
    AT(struct llama_model_params, tensor_split);
    AT(struct llama_model_params, progress_callback);
    AT(struct llama_model_params, progress_callback_user_data);
    AT(struct llama_model_params, kv_overrides);
    AT(struct llama_model_params, vocab_only);
    AT(struct llama_model_params, use_mmap);
    AT(struct llama_model_params, use_mlock);
    AT(struct llama_model_params, check_tensors);
    AT(struct llama_model_params, use_extra_bufts);
    AT(struct llama_model_params, no_host);
    AT(struct llama_model_params, no_alloc);

    SIZE(struct llama_context_params);
    AT(struct llama_context_params, n_ctx);
    AT(struct llama_context_params, n_batch);
    AT(struct llama_context_params, n_ubatch);
    AT(struct llama_context_params, n_seq_max);
    AT(struct llama_context_params, n_threads);
    AT(struct llama_context_params, n_threads_batch);
    AT(struct llama_context_params, rope_scaling_type);
    AT(struct llama_context_params, pooling_type);
    AT(struct llama_context_params, attention_type);
    AT(struct llama_context_params, flash_attn_type);
    AT(struct llama_context_params, rope_freq_base);
    AT(struct llama_context_params, rope_freq_scale);
    AT(struct llama_context_params, yarn_ext_factor);
    AT(struct llama_context_params, yarn_attn_factor);
    AT(struct llama_context_params, yarn_beta_fast);
    AT(struct llama_context_params, yarn_beta_slow);
    AT(struct llama_context_params, yarn_orig_ctx);
    AT(struct llama_context_params, defrag_thold);
    AT(struct llama_context_params, cb_eval);
    AT(struct llama_context_params, cb_eval_user_data);
    AT(struct llama_context_params, type_k);
    AT(struct llama_context_params, type_v);
    AT(struct llama_context_params, abort_callback);
    AT(struct llama_context_params, abort_callback_data);
    AT(struct llama_context_params, embeddings);
    AT(struct llama_context_params, offload_kqv);
    AT(struct llama_context_params, no_perf);
    AT(struct llama_context_params, op_offload);
    AT(struct llama_context_params, swa_full);
    AT(struct llama_context_params, kv_unified);

    SIZE(struct llama_batch);
    AT(struct llama_batch, n_tokens);
    AT(struct llama_batch, token);
    AT(struct llama_batch, embd);
    AT(struct llama_batch, pos);
    AT(struct llama_batch, n_seq_id);
    AT(struct llama_batch, seq_id);
    AT(struct llama_batch, logits);

    SIZE(llama_token_data);
    AT(llama_token_data, id);
    AT(llama_token_data, logit);
    AT(llama_token_data, p);

    SIZE(llama_token_data_array);
    AT(llama_token_data_array, data);
    AT(llama_token_data_array, size);
    AT(llama_token_data_array, selected);
    AT(llama_token_data_array, sorted);

    VALUE(LLAMA_TOKEN_ATTR_UNKNOWN);
    VALUE(LLAMA_TOKEN_ATTR_UNUSED);
    VALUE(LLAMA_TOKEN_ATTR_CONTROL);
    VALUE(LLAMA_POOLING_TYPE_NONE);
    return 0;
}
