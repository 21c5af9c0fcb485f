"""Token ids by the published encoders; see scripts/token_ids."""

import base64
import json
import pathlib
import sys

import blake3
import numpy
import tiktoken
import tokenizers

DATA = pathlib.Path("../shared/data")
FILES = sorted(DATA.glob("text/*.txt")) + sorted(DATA.glob("lang/*.txt"))
GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|"
    r"\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def ranks(name, pattern):
    lines = (DATA / "vocab" / name).read_text().split("\n")
    pairs = (line.split(" ") for line in lines if line)
    found = {base64.b64decode(token): int(rank) for token, rank in pairs}
    encoding = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=found, special_tokens={})
    return encoding.encode_ordinary


def by_tokenizers(tokenizer):
    tokenizer.encode_special_tokens = True
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids


def main(path):
    vocab = DATA / "vocab"
    bert = tokenizers.BertWordPieceTokenizer(str(vocab / "bert-base-uncased-vocab.txt"))
    encoders = {
        "gpt2.tokenizer.json": by_tokenizers(
            tokenizers.Tokenizer.from_file(str(vocab / "gpt2.tokenizer.json"))
        ),
        "r50k_base.tiktoken": ranks("r50k_base.tiktoken", GPT2),
        "cl100k_base.tiktoken": ranks("cl100k_base.tiktoken", CL100K),
        "llama3.tokenizer.model llama3": ranks("llama3.tokenizer.model", LLAMA3),
        # The pattern of o200k, over the ranks that are there.
        "cl100k_base.tiktoken o200k": ranks("cl100k_base.tiktoken", O200K),
        "bert-base-uncased-vocab.txt": lambda text: bert.encode(text, add_special_tokens=False).ids,
    }
    made = {}
    for name, encode in encoders.items():
        hasher, tokens = blake3.blake3(), 0
        for file in FILES:
            ids = numpy.asarray(encode(file.read_bytes().decode()), dtype="<u4")
            hasher.update(ids.tobytes())
            tokens += len(ids)
        made[name] = {"tokens": tokens, "blake3": hasher.hexdigest()}
        print(name, made[name], flush=True)
    versions = {"tiktoken": tiktoken.__version__, "tokenizers": tokenizers.__version__}
    text = json.dumps({"made_by": versions, "files": len(FILES), "encoders": made}, indent=1)
    pathlib.Path(path).write_text(text + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
