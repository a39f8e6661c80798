"""Vision-language models of transformers (SmolVLM, PaliGemma) as the observation's stream: their language model's layers are
the experts of a stream that holds pictures and the sentence, whose keys and values the other streams read.
"""
