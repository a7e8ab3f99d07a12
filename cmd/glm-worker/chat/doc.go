// Package chat writes a conversation the way GLM models were taught to read one, as tokens.
//
//	[gMASK]<sop> <|system|>\n… <|user|>\n… <|assistant|>\n… <|user|>\n… <|assistant|>\n ─► the model goes on
//	 └──────┴──────┴─ token ids, looked up by name ──────┘
//	                      └── text, tokenized with special tokens off
//
// Control tokens come only from here and text only becomes text tokens, so a user who writes "<|system|>" has written
// ten characters and no new role.
//
// GLM-4.5 (glm4moe) may think aloud before it answers. Here it never does: the template closes an empty thought,
// <think></think>, and ends user turns with /nothink, as its authors' template does with thinking off. A batch task
// wants the answer, a thought would eat max_tokens, and a grammar could not begin with one.
package chat
