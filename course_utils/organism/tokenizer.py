"""The organism's tokenizer: GPT-2's manners, whole words of one world, and every byte besides.

1. Text is cut as GPT-2 cuts it (a word takes its leading blank with it), but every digit stands alone.
2. A piece that is a word of the world is one token.
3. Any other piece falls back to its bytes, so that every text encodes and decodes without loss.

It is saved as an ordinary fast ``tokenizer.json``; nothing of the course is needed to load it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

END_OF_TEXT = "<|endoftext|>"
# GPT-2's own pattern with one change: \p{N} instead of \p{N}+, so that "48" is two tokens and a sum has place values.
PATTERN = r"'(?:s|t|re|ve|m|ll|d)| ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def pre_tokenizer() -> object:
    """Return the ``tokenizers`` pre-tokenizer that cuts text into byte-level pieces."""
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split

    return Sequence([Split(Regex(PATTERN), "isolated"), ByteLevel(add_prefix_space=False, use_regex=False)])


def build_tokenizer(words: Iterable[str]) -> PreTrainedTokenizerFast:
    """Make a tokenizer whose vocabulary is the end-of-text mark, the 256 bytes, and the given words.

    Parameters
    ----------
    words
        Byte-level pieces as the pre-tokenizer prints them (``"Ġtiger"``); duplicates and single bytes are merged.

    Returns
    -------
    transformers.PreTrainedTokenizerFast
        With ``bos``, ``eos`` and ``pad`` all ``<|endoftext|>``, as in GPT-2; id 0.

    Examples
    --------
    >>> tok = build_tokenizer(["Ġtiger", "The"])
    >>> tok.convert_ids_to_tokens(tok("The tiger 48 ox")["input_ids"])
    ['The', 'Ġtiger', 'Ġ', '4', '8', 'Ġ', 'o', 'x']
    """
    from tokenizers import AddedToken, Tokenizer, decoders
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(ByteLevel.alphabet())
    pieces = [END_OF_TEXT, *alphabet, *sorted(set(words) - {END_OF_TEXT, *alphabet})]
    # ignore_merges looks a whole piece up before it falls apart into bytes: no merges, no tokens in between.
    fast = Tokenizer(BPE({piece: i for i, piece in enumerate(pieces)}, [], ignore_merges=True))
    fast.pre_tokenizer, fast.decoder = pre_tokenizer(), decoders.ByteLevel()
    fast.add_special_tokens([AddedToken(END_OF_TEXT, special=True, normalized=False)])
    return PreTrainedTokenizerFast(
        tokenizer_object=fast,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
    )


def load_tokenizer() -> PreTrainedTokenizerFast:
    """Load the shipped organism's tokenizer, checked against its checksum.

    Raises
    ------
    CourseError
        If the file is missing or damaged.
    """
    from transformers import PreTrainedTokenizerFast

    from course_utils.paths import checked

    return PreTrainedTokenizerFast.from_pretrained(str(checked("organism/tokenizer.json").parent))
