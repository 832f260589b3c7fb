"""Folders that transformers saves in many ways, each with what transformers itself makes of it.

`variation` draws how a folder is to be made, `model` and `tokenizer` make it, `writing` writes it and what transformers
makes of it (`told`): none of them imports ernie-rt, so that a Python with another transformers can run them (`child`).
`compare` says where ernie-rt differs, `refusals` what it may refuse.
"""
