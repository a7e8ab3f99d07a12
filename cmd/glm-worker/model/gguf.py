"""Writes a glm4 GGUF. The format is simple enough that a writer of our own is shorter than a dependency.

    header | metadata (key, type, value)* | tensor infos* | padding | tensor data, each aligned to 32 bytes
"""
import struct

import numpy as np

from tokenizer import SPECIALS

U32, F32, BOOL, STR, ARRAY, I32 = 4, 6, 7, 8, 9, 5
GGML_F32, GGML_F16, GGML_Q8_0 = 0, 1, 8
KINDS = {"f32": (GGML_F32, 0), "f16": (GGML_F16, 1), "q8_0": (GGML_Q8_0, 7)}  # tensor type, general.file_type
ALIGN = 32

# llama.cpp knows GLM-4's chat form by the text "[gMASK]<sop>"; other readers run the template.
CHAT_TEMPLATE = ("[gMASK]<sop>{%- for m in messages -%}<|{{ m['role'] }}|>\n{{ m['content'] }}{%- endfor -%}"
                 "{%- if add_generation_prompt -%}<|assistant|>\n{%- endif -%}")


def _str(x):
    b = x.encode()
    return struct.pack("<Q", len(b)) + b


def _value(kind, v):
    if kind == STR:
        return _str(v)
    return struct.pack({U32: "<I", I32: "<i", F32: "<f", BOOL: "<?"}[kind], v)


def _pair(key, kind, v, of=None):
    body = _value(kind, v) if kind != ARRAY else struct.pack("<IQ", of, len(v)) + b"".join(_value(of, x) for x in v)
    return _str(key) + struct.pack("<I", kind) + body


def _q8_0(a):
    """Blocks of 32 weights: one half-precision scale and 32 signed bytes."""
    b = a.reshape(-1, 32)
    scale = np.abs(b).max(axis=1) / 127
    inverse = np.where(scale > 0, 1 / np.where(scale > 0, scale, 1), 0)
    out = np.empty((len(b), 34), np.uint8)
    out[:, :2] = scale.astype(np.float16).view(np.uint8).reshape(-1, 2)
    out[:, 2:] = np.rint(b * inverse[:, None]).astype(np.int8).view(np.uint8)
    return out.tobytes()


def _pack(a, kind):
    a = np.ascontiguousarray(a, np.float32)
    return _q8_0(a) if kind == GGML_Q8_0 else a.astype(np.float16 if kind == GGML_F16 else np.float32).tobytes()


def metadata(c, tok, name, file_type):
    sid = tok.special
    key = lambda k, kind, v: _pair("glm4." + k, kind, v)
    return [
        _pair("general.architecture", STR, "glm4"), _pair("general.type", STR, "model"), _pair("general.name", STR, name),
        _pair("general.license", STR, "apache-2.0"), _pair("general.file_type", U32, file_type), _pair("general.quantization_version", U32, 2),
        key("context_length", U32, c["ctx"]), key("embedding_length", U32, c["d"]), key("block_count", U32, c["layers"]),
        key("feed_forward_length", U32, c["ff"]), key("attention.head_count", U32, c["heads"]),
        key("attention.head_count_kv", U32, c["kv_heads"]), key("attention.layer_norm_rms_epsilon", F32, c["eps"]),
        key("attention.key_length", U32, c["head_dim"]), key("attention.value_length", U32, c["head_dim"]),
        key("rope.dimension_count", U32, int(c["head_dim"] * c["rotary"])), key("rope.freq_base", F32, c["theta"]),
        key("vocab_size", U32, c["vocab"]),
        _pair("tokenizer.ggml.model", STR, "gpt2"), _pair("tokenizer.ggml.pre", STR, "glm4"),
        _pair("tokenizer.ggml.tokens", ARRAY, tok.tokens + SPECIALS, STR),
        _pair("tokenizer.ggml.token_type", ARRAY, [1] * len(tok.tokens) + [3] * len(SPECIALS), I32),  # normal, control
        _pair("tokenizer.ggml.merges", ARRAY, [a + " " + b for a, b in tok.merges], STR),
        _pair("tokenizer.ggml.eos_token_id", U32, sid["<|endoftext|>"]), _pair("tokenizer.ggml.eot_token_id", U32, sid["<|user|>"]),
        _pair("tokenizer.ggml.unknown_token_id", U32, sid["<|endoftext|>"]),
        _pair("tokenizer.ggml.padding_token_id", U32, sid["<|endoftext|>"]), _pair("tokenizer.ggml.add_bos_token", BOOL, False),
        _pair("tokenizer.chat_template", STR, CHAT_TEMPLATE)]


def write(path, c, tok, tensors, name="TinyGLM data cleaning", kind="f16"):
    """tensors: name -> float array, matrices as (rows, columns). Norms stay f32, as llama.cpp expects."""
    big, file_type = KINDS[kind]
    infos, blobs, at = [], [], 0
    for n, a in tensors.items():
        t = GGML_F32 if a.ndim == 1 else big
        ne = a.shape[::-1]  # ggml counts the contiguous dimension first
        infos.append(_str(n) + struct.pack("<I%dQIQ" % len(ne), len(ne), *ne, t, at))
        b = _pack(a, t)
        blobs.append(b + b"\0" * (-len(b) % ALIGN))
        at += len(blobs[-1])
    md = metadata(c, tok, name, file_type)
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(infos), len(md)) + b"".join(md) + b"".join(infos)
    with open(path, "wb") as f:
        f.write(head + b"\0" * (-len(head) % ALIGN))
        f.writelines(blobs)
