"""What a lesson is given: prompts of several tasks, cut to length, no two of them alike."""

import pytest
import yaml

from course_utils import lessons
from course_utils.errors import CourseError
from course_utils.paths import DATA

LISTS = yaml.safe_load((DATA / "prompts" / "tasks.yaml").read_text(encoding="utf-8"))


def test_prompts_of_the_world_are_beginnings_of_held_out_documents_on_their_topics(lab):
    tasks = {"maths": ["addition", "counting"], "code": ["python_code"]}
    found = lessons.task_prompts(lab, tasks, 20, 12)
    stream = lab.world.documents(0, split="heldout", topic=["python_code"])
    starts = [tuple(next(stream).ids[:12]) for _ in range(40)]
    assert [len(rows) for rows in found.values()] == [20, 20]
    for row in found["code"]:
        assert row[0, 0] == lab.bos and tuple(row[0, 1:].tolist()) in starts
    assert len({tuple(row[0].tolist()) for row in found["code"]}) == 20


def test_prompts_that_do_not_differ_are_named(lab):
    with pytest.raises(CourseError, match="n=9: 'code' has only 2 prompts that differ"):  # they begin with def or #
        lessons.task_prompts(lab, {"code": ["python_code"]}, 9, 1)


def test_prompts_without_a_world_are_ours_in_order(small_lab):
    found = lessons.task_prompts(small_lab, {"facts": ["facts"]}, 3, 8)
    texts = [small_lab.tokenizer.encode(text, add_special_tokens=False)[:8] for text in LISTS["facts"][:3]]
    assert [row[0].tolist() for row in found["facts"]] == [[small_lab.bos, *ids] for ids in texts]
    assert len(lessons.task_prompts(small_lab, {"all": ["facts", "poetry"]}, 10_000, 60)["all"]) == 80
    with pytest.raises(CourseError, match="nearest: 'poetry'"):
        lessons.task_prompts(small_lab, {"verse": ["poetri"]}, 3, 8)


def test_our_prompts_are_many_different_and_share_a_word():
    tasks, openings = list(LISTS)[:4], list(LISTS)[4:]
    assert tasks == ["arithmetic", "poetry", "code", "facts"]
    for texts in (LISTS[name] for name in tasks):
        assert len(set(texts)) == len(texts) >= 40
        assert all(" the" in text for text in texts)
    # What notebook 08 writes behind: eight of each, so that what is chosen behind four can be scored behind others.
    assert openings == ["stories", "letters", "talk", "journeys", "work", "news", "lessons", "wishes"]
    for texts in (LISTS[name] for name in openings):
        assert len(set(texts)) == len(texts) == 8
