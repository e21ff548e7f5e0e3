"""The model organism: a synthetic world with an answer key, and the small language model trained on it."""

from course_utils.organism.tokenizer import build_tokenizer, load_tokenizer
from course_utils.organism.world import Document, World

__all__ = ["Document", "World", "build_tokenizer", "load_tokenizer"]
