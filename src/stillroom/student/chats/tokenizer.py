"""A tokenizer made from the job's own rows, for students that start from nothing.

Byte-level BPE: every Unicode text survives a round trip, whatever it was trained on. Owns the names
of the control tokens that `template.CHATML` writes; knows nothing of models.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
TOOL_TAGS = ("<tool_call>", "</tool_call>")

SMALLEST_VOCABULARY = 512
LARGEST_VOCABULARY = 4096
BYTES_PER_ENTRY = 24
"""One vocabulary entry per so many distinct bytes of text: a merge that was seen once or twice teaches nothing."""


def train_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A tokenizer whose vocabulary fits the texts: 512 to 4,096 entries, single digits, no normalisation."""
    counts = Counter(texts)
    distinct = sorted(counts)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            # A newline of its own: the answer's first line never merges with the newline after the role.
            pre_tokenizers.Split("\n", "isolated"),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    # What occurs in every row (a system prompt) need not be counted a thousand times, but more than once.
    repeated = [text for text in distinct if counts[text] > 1]
    tokenizer.train_from_iterator(distinct + repeated, _trainer(distinct))
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TOOL_TAGS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, clean_up_tokenization_spaces=False
    )


def _trainer(texts: list[str]) -> trainers.BpeTrainer:
    size = sum(len(text.encode()) for text in texts) // BYTES_PER_ENTRY
    return trainers.BpeTrainer(
        vocab_size=min(max(size, SMALLEST_VOCABULARY), LARGEST_VOCABULARY),
        min_frequency=2,
        special_tokens=[PAD, START, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
