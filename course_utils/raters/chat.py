"""A rater that asks a chat model on this machine, through transformers: greedy, in batches, no network, no pickle.

Every question is one prompt and asks for one short answer; an answer that cannot be read counts as no answer, and how
many there were is in ``unread``. Any model whose tokenizer has a chat template will do.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from course_utils.errors import CourseError
from course_utils.raters.passages import Passage
from course_utils.raters.protocol import Explanation

_TASK = ("We study one unit inside a language model. It is active on some tokens of a text and silent on the others. ")
_EXPLAIN = _TASK + ("In each passage below, one token on which it is active stands between << and >>; the number says "
                    "how active, out of 10.\n\n{examples}\n\nWhat do these tokens, or their contexts, have in common? "
                    "Answer in one line, in at most 20 words.")
_DETECT = _TASK + ("What is known of it: {said}\n\nIs it active on at least one token of this passage?\n\n{passage}\n\n"
                   "Answer yes or no.")
_FUZZ = _TASK + ("What is known of it: {said}\n\nIs it active on the token between << and >> in this passage?\n\n"
                 "{passage}\n\nAnswer yes or no.")
_CHOOSE = _TASK + ("In each passage below, one token on which it is active stands between << and >>.\n\n{examples}\n\n"
                   "{prime}Which label fits best?\n\n{options}\n\nAnswer with one letter.")
_PRIME = "Somebody who saw them before wrote: {prime}\n\n"
_NONE = "nothing in particular"


class ChatRater:
    """Rates by asking a chat model.

    Parameters
    ----------
    model
        A local directory, or a hub id that is in the cache or can be reached.
    device
        Where it runs; ``"auto"``: CUDA, else the CPU.
    batch
        Prompts answered at a time.
    max_tokens
        Longest explanation; other answers take at most 8.

    Raises
    ------
    CourseError
        If there is no such model, or its tokenizer has no chat template.
    """

    def __init__(self, model: str | Path, device: str = "auto", batch: int = 8, max_tokens: int = 48) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from course_utils.lab.machine import hushed, pick_device

        if batch < 1 or max_tokens < 1:
            raise CourseError(f"{batch=} and {max_tokens=} must be at least 1.")
        try:
            with hushed():
                self.tokenizer = AutoTokenizer.from_pretrained(str(model))
                self.model = AutoModelForCausalLM.from_pretrained(str(model), use_safetensors=True, dtype="auto")
        except (OSError, ValueError) as error:
            raise CourseError(f"model={str(model)!r} cannot be opened as a chat model ({_first(error)}); give a local "
                              "directory with a safetensors checkpoint and its tokenizer.") from error
        if not self.tokenizer.chat_template:
            raise CourseError(f"model={str(model)!r} has no chat template, so it is no chat model; give an instruct "
                              "or chat version of it.")
        self.name, self.batch, self.max_tokens, self.unread = Path(str(model)).name, batch, max_tokens, 0
        self.tokenizer.padding_side = "left"
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.device = pick_device(device)
        self.model.to(self.device).eval()

    def ask(self, prompts: Sequence[str], max_tokens: int = 8) -> list[str]:
        """Return the model's greedy answer to each prompt."""
        texts = [self.tokenizer.apply_chat_template([{"role": "user", "content": prompt}], tokenize=False,
                                                    add_generation_prompt=True) for prompt in prompts]
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # like lengths together: little is padded
        answers = [""] * len(texts)
        for start in range(0, len(texts), self.batch):
            chosen = order[start : start + self.batch]
            given = self.tokenizer([texts[i] for i in chosen], return_tensors="pt", padding=True,
                                   add_special_tokens=False).to(self.device)
            length = given.input_ids.shape[1]
            room = getattr(self.model.config, "max_position_embeddings", None)
            if room is not None and length + max_tokens > room:
                raise CourseError(f"a prompt has {length} tokens and {self.name} reads {room}, its answer included; "
                                  "give fewer examples, less context, or a model with a longer one.")
            with torch.no_grad():
                out = self.model.generate(**_known(given), max_new_tokens=max_tokens, do_sample=False, top_p=None,
                                          top_k=None, temperature=None, pad_token_id=self.tokenizer.pad_token_id)
            said = self.tokenizer.batch_decode(out[:, length:], skip_special_tokens=True)
            for i, answer in zip(chosen, said, strict=True):
                answers[i] = answer.strip()
        return answers

    def explain(self, examples: Sequence[Passage]) -> Explanation:
        """Ask what the tokens on which a unit is active have in common."""
        answer = self.ask([_EXPLAIN.format(examples=_listed(examples, told=True))], self.max_tokens)[0]
        line = next((line.strip() for line in answer.splitlines() if re.search(r"\w", line)), "")
        self.unread += not line
        return Explanation(line or _NONE)

    def detect(self, explanation: Explanation, passages: Sequence[Passage]) -> list[float]:
        """Ask of each passage whether the unit fires in it: 1 is yes, -1 no, 0 an answer that cannot be read."""
        return self._yes_or_no([_DETECT.format(said=explanation.text, passage=_line(p.text)) for p in passages])

    def fuzz(self, explanation: Explanation, passages: Sequence[Passage]) -> list[float]:
        """Ask whether the unit fires on the token that each passage points at, likewise."""
        return self._yes_or_no([_FUZZ.format(said=explanation.text, passage=_line(p.marked())) for p in passages])

    def choose(self, examples: Sequence[Passage], options: Mapping[str, Collection[str]],
               prime: str | None = None) -> str | None:
        """Ask which label fits; a label that somebody put forward is told first. None: none of them, or not read."""
        letters = dict(zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", [*options, _NONE], strict=False))
        if len(letters) <= len(options):
            raise CourseError(f"options has {len(options)} labels; a chat model is asked for one of at most 25.")
        told = _PRIME.format(prime=prime) if prime is not None else ""
        listed = "\n".join(f"{letter}. {name}" for letter, name in letters.items())
        answer = self.ask([_CHOOSE.format(examples=_listed(examples), prime=told, options=listed)])[0]
        name = read_letter(answer, letters)
        self.unread += name is None
        return None if name == _NONE else name

    def _yes_or_no(self, prompts: Sequence[str]) -> list[float]:
        found = [read_yes_or_no(answer) for answer in self.ask(prompts)]
        self.unread += found.count(0.0)
        return found


def read_yes_or_no(answer: str) -> float:
    """Read an answer: 1 for yes, -1 for no, 0 where it is neither or both."""
    words = set(re.findall(r"[a-z]+", answer.lower()))
    return float(("yes" in words) - ("no" in words))


def read_letter(answer: str, letters: Mapping[str, str]) -> str | None:
    """Read which of some lettered labels an answer names: by a letter in front, by the label, or by a letter within."""
    found = re.match(r"\W*([A-Z])\b", answer)
    if found and found.group(1) in letters:
        return letters[found.group(1)]
    named = [name for name in letters.values() if name.lower() in answer.lower()]
    within = [letter for letter in re.findall(r"\b([A-Z])\b", answer) if letter in letters and letter not in "AI"]
    return named[0] if len(named) == 1 else letters[within[0]] if len(set(within)) == 1 else None


def _listed(examples: Sequence[Passage], told: bool = False) -> str:
    peak = max((e.value for e in examples), default=0.0) or 1.0
    return "\n".join(f"{i}. {_line(e.marked())}" + (f" ({round(10 * e.value / peak)})" if told else "")
                     for i, e in enumerate(examples, start=1))


def _line(text: str) -> str:
    return text.replace("\n", " ").strip()


def _known(given: Any) -> dict[str, Any]:
    """Drop what some tokenizers add and some models refuse."""
    return {name: given[name] for name in ("input_ids", "attention_mask")}


def _first(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
