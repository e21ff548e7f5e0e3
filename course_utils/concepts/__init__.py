"""What a token is about: exact on the organism, from word lists elsewhere; both give the same `Labels`."""

from course_utils.concepts.labels import Concepts, Labels, domain_of
from course_utils.concepts.words import word_labels, word_list_labels, word_lists

__all__ = ["Concepts", "Labels", "domain_of", "word_labels", "word_list_labels", "word_lists"]
