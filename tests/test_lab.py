"""Opening models: against Hugging Face's own logits, with the network cut, and with everything that can be wrong."""

from __future__ import annotations

import json
import shutil
import socket
import time
from pathlib import Path

import pytest
import torch

from course_utils.errors import CourseError
from course_utils.lab import hub, machine, models, open_lab, random_twin, stream, text, token_losses
from course_utils.paths import DATA


def hugging_face_logits(directory, tokens):
    from transformers import AutoModelForCausalLM

    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(directory, local_files_only=True).eval()(tokens).logits


@pytest.mark.parametrize("which", ["tiny_gpt2", "stories"])
def test_logits_are_hugging_faces(which, request):
    model = request.getfixturevalue(which)
    lab = request.getfixturevalue({"tiny_gpt2": "small_lab", "stories": "stories_lab"}[which])
    tokens = next(lab.batches(300)).tokens
    torch.testing.assert_close(lab.logits(tokens), hugging_face_logits(model.directory, tokens), atol=2e-4, rtol=1e-4)


def test_a_real_model_reads_real_stories(stories_lab):
    batch = next(stories_lab.batches(3000))
    losses = token_losses(stories_lab.logits(batch.tokens), batch.tokens, batch.mask)
    assert 1.0 < losses.sum() / batch.mask[:, 1:].sum() < 1.5  # nats; the model's own README says 1.1 to 1.3


def test_token_losses_by_hand(small_lab):
    batch = next(small_lab.batches(500))
    logits = small_lab.logits(batch.tokens)
    losses = token_losses(logits, batch.tokens, batch.mask)
    assert losses.shape == (batch.tokens.shape[0], batch.tokens.shape[1] - 1)
    row = 0
    length = int(batch.mask[row].sum())
    for i in range(length - 1):
        expected = -torch.log_softmax(logits[row, i], -1)[batch.tokens[row, i + 1]]
        torch.testing.assert_close(losses[row, i], expected)
    assert not losses[~batch.mask[:, 1:]].any()


def test_padding_changes_no_real_token(small_lab):
    batch = next(b for b in small_lab.batches(3000, batch_tokens=400) if not b.mask.all())
    row = int((~batch.mask).any(1).nonzero()[0])
    length = int(batch.mask[row].sum())
    alone = small_lab.logits(batch.tokens[row : row + 1, :length])
    torch.testing.assert_close(small_lab.logits(batch.tokens)[row, :length], alone[0], atol=1e-4, rtol=1e-4)


def test_batches_hold_every_token_once_and_in_windows(small_lab):
    batches = list(small_lab.batches(5000, batch_tokens=256))
    rows = [(int(d), row[mask].tolist()) for b in batches for d, row, mask in zip(b.doc, b.tokens, b.mask, strict=True)]
    assert all(row[0] == small_lab.bos and len(row) <= small_lab.n_ctx for _, row in rows)
    assert all(b.tokens.numel() <= 256 for b in batches)
    assert sum(len(row) - 1 for _, row in rows) == 5000
    documents = small_lab.documents()
    for number in range(5):
        windows = [row[1:] for d, row in rows if d == number]
        assert sorted(sum(windows, [])) == sorted(next(documents).ids)
    again = list(small_lab.batches(5000, batch_tokens=256))
    assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(batches, again, strict=True))


def test_heldout_text_is_other_text(small_lab):
    train = [d.text for d in small_lab.documents()]
    heldout = [d.text for d in small_lab.documents("heldout")]
    assert len(heldout) == 40 and len(train) == 360
    assert heldout[0] == list(text.file_documents(small_lab_text(small_lab)))[9]
    with pytest.raises(CourseError, match="split='test'.*'train'"):
        small_lab.documents("test")


def small_lab_text(lab):
    return lab.text.texts.args[0]


def test_opening_prints_one_line_and_windows_are_said_once(tiny_gpt2, capsys):
    lab = open_lab(tiny_gpt2.directory, text=tiny_gpt2.text)
    said = capsys.readouterr()
    assert said.out.count("\n") == 1 and not said.err
    assert all(word in said.out for word in ("tiny_gpt2", "3 layers", "width 32", "float32", "text.txt"))
    list(lab.batches(3000))
    list(lab.batches(3000))
    assert capsys.readouterr().out.count("windows") == 1


def test_local_model_needs_no_network(tiny_gpt2, no_network):
    open_lab(tiny_gpt2.directory, text=tiny_gpt2.text, quiet=True)
    assert no_network == []


def test_organism_needs_no_network(no_network):
    if not (DATA / "organism" / "config.json").is_file():
        pytest.skip("data/organism has not been trained yet")
    lab = open_lab("organism", quiet=True)
    assert no_network == []
    batch = next(lab.batches(2000, labels=True))
    assert len(batch.labels) == int(batch.mask.sum())
    assert not batch.labels.columns["topic"][(batch.tokens == lab.bos)[batch.mask].numpy()].max() >= 0
    torch.testing.assert_close(lab.logits(batch.tokens), hugging_face_logits(DATA / "organism", batch.tokens),
                               atol=2e-4, rtol=1e-4)


def test_the_world_is_text_with_labels(tmp_path, tiny_gpt2):
    from transformers import GPT2Config, GPT2LMHeadModel

    from course_utils.organism import World, build_tokenizer

    world = World.load()
    size = len(world.vocabulary)
    GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=2, n_positions=128, vocab_size=size,
                               bos_token_id=0, eos_token_id=0)).save_pretrained(tmp_path)
    build_tokenizer(world.vocabulary).save_pretrained(tmp_path)
    lab = open_lab(tmp_path, text="world", quiet=True, seed=3)
    documents = lab.documents(labels=True)
    expected = {number: next(documents) for number in range(40)}
    for batch in lab.batches(1500, labels=True):
        start = 0
        for number, row, mask in zip(batch.doc.tolist(), batch.tokens, batch.mask, strict=True):
            rows = batch.labels[start : start + int(mask.sum())]
            start += len(rows)
            if number in expected and len(rows) == len(expected[number].ids) + 1:
                assert row[mask].tolist() == [lab.bos, *expected[number].ids]
                names = rows.names["topic"]
                assert rows.columns["topic"][0] == -1
                assert [names[code] for code in rows.columns["topic"][1:]] == expected.pop(number).labels["topic"]
    assert len(expected) < 30
    with pytest.raises(CourseError, match="needs a model with the organism's tokens"):
        open_lab(tiny_gpt2.directory, text="world", quiet=True)


def test_gpt2s_own_tokenizer_files(gpt2):
    assert gpt2.encode("Hello world").tolist() == [[50256, 15496, 995]]  # EOS serves as BOS, as in GPT-2's training
    assert gpt2.token_strings[995] == " world"


def test_hooks(small_lab):
    assert small_lab.middle_hook == "blocks.0.hook_resid_post"
    layers = {"blocks.2.attn.hook_z": 2, "hook_embed": 0, "hook_pos_embed": 0, "ln_final.hook_normalized": 3}
    assert {hook: small_lab.hook_layer(hook) for hook in layers} == layers
    with pytest.raises(CourseError, match="hook='blocks.1.hook_resid_pots'.*'blocks.1.hook_resid_post'"):
        small_lab.check_hook("blocks.1.hook_resid_pots")


def test_capture_equals_run_with_cache_and_stops_there(small_lab):
    tokens = next(small_lab.batches(500)).tokens
    _, cache = small_lab.model.run_with_cache(tokens)
    entered = []
    handles = [block.register_forward_pre_hook(lambda *_, i=i: entered.append(i))
               for i, block in enumerate(small_lab.model.blocks)]
    try:
        for hook in ("blocks.1.hook_resid_pre", "blocks.1.mlp.hook_post", "blocks.1.hook_attn_out",
                     "blocks.1.attn.hook_z"):
            entered.clear()
            assert torch.equal(small_lab.capture(tokens, hook), cache[hook])
            assert entered == [0, 1]
    finally:
        for handle in handles:
            handle.remove()


def test_a_capture_leaves_the_model_as_it_was(small_lab):
    tokens = next(small_lab.batches(500)).tokens
    clean = small_lab.logits(tokens)
    small_lab.capture(tokens, "blocks.1.hook_resid_post")
    assert torch.equal(small_lab.logits(tokens), clean)
    assert not any(point.fwd_hooks for point in small_lab.model.hook_dict.values())


def test_prompts_and_tokens_that_do_not_fit(small_lab):
    with pytest.raises(CourseError, match="empty"):
        small_lab.encode("")
    with pytest.raises(CourseError, match="has 65 tokens; .* at most 63"):
        small_lab.encode("." * 65)
    assert small_lab.encode("." * 63).shape == (1, 64)
    with pytest.raises(CourseError, match="id 999"):
        small_lab.logits(torch.tensor([[0, 999]]))
    with pytest.raises(CourseError, match="65 positions"):
        small_lab.logits(torch.zeros(1, 65, dtype=torch.long))


@pytest.fixture
def copy(tiny_gpt2, tmp_path):
    return Path(shutil.copytree(tiny_gpt2.directory, tmp_path / "copy"))


def test_damaged_checkpoints_get_a_sentence(copy):
    weights = copy / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CourseError, match="model.safetensors' is cut short or damaged"):
        open_lab(copy)
    weights.unlink()
    with pytest.raises(CourseError, match="has no model.safetensors"):
        open_lab(copy)
    (copy / "config.json").write_text("{")
    with pytest.raises(CourseError, match="config.json is not JSON"):
        open_lab(copy)
    (copy / "config.json").unlink()
    with pytest.raises(CourseError, match="has no config.json"):
        open_lab(copy)


def test_missing_weights_are_not_made_up(copy):
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    del weights["transformer.h.1.mlp.c_fc.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CourseError, match="lacks 1 weights, e.g. 'transformer.h.1.mlp.c_fc.weight'"):
        open_lab(copy)


def test_a_model_without_tokenizer(copy):
    (copy / "vocab.json").unlink()
    (copy / "merges.txt").unlink()
    with pytest.raises(CourseError, match="has no tokenizer"):
        open_lab(copy)


def test_text_that_cannot_be_read(tiny_gpt2, tmp_path):
    for name, content, message in (("empty.txt", b" \n\n ", "holds no text"), ("latin.txt", b"caf\xe9", "not UTF-8")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CourseError, match=message):
            open_lab(tiny_gpt2.directory, text=tmp_path / name)
    with pytest.raises(CourseError, match="cannot be read"):
        open_lab(tiny_gpt2.directory, text=tmp_path / "missing.txt")
    with pytest.raises(CourseError, match="without text"):
        open_lab(tiny_gpt2.directory, quiet=True).documents()


def test_blank_lines_separate_documents_where_nothing_else_does(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "_CHUNK", 7)  # documents and separators across the borders of what is read at once
    (tmp_path / "a.txt").write_text("one\ntwo\n\n\nthree\n \nfour")
    assert list(text.file_documents(tmp_path / "a.txt")) == ["one\ntwo", "three", "four"]
    (tmp_path / "b.txt").write_text("one\n\ntwo<|endoftext|>\nthree\n<|endoftext|>")
    assert list(text.file_documents(tmp_path / "b.txt")) == ["one\n\ntwo", "three"]


def test_unknown_models_devices_and_dtypes(tiny_gpt2, tmp_path):
    with pytest.raises(CourseError, match="not a directory on this machine"):
        open_lab(str(tmp_path / "nowhere"))
    with pytest.raises(CourseError, match="device='gpu'"):
        open_lab(tiny_gpt2.directory, device="gpu")
    with pytest.raises(CourseError, match="dtype='float8'"):
        open_lab(tiny_gpt2.directory, dtype="float8")


def test_hub_out_of_reach_is_said_within_seconds(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with socket.socket() as silent:  # accepts connections and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        assert hub.hub_error(timeout=0.5)
        assert time.monotonic() - start < 2
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(CourseError, match="model='gpt2' needs the hub.*model='organism' or a local directory"):
        open_lab("gpt2")
    with pytest.raises(CourseError, match="text='hub:someone/something' needs the hub"):
        next(stream.stream_documents("someone/something"))


def test_a_hub_model_in_the_cache_needs_no_network(monkeypatch, tiny_gpt2, tmp_path, no_network):
    from huggingface_hub import constants

    cache = tmp_path / "models--someone--tiny"
    shutil.copytree(tiny_gpt2.directory, cache / "snapshots" / ("a" * 40))
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    lab = open_lab("someone/tiny", text=tiny_gpt2.text, quiet=True)
    assert (lab.name, lab.n_layers, no_network) == ("someone/tiny", 3, [])


def test_environment_chooses_model_and_text(monkeypatch, tiny_gpt2):
    monkeypatch.setenv("COURSE_MODEL", str(tiny_gpt2.directory))
    monkeypatch.setenv("COURSE_TEXT", str(tiny_gpt2.text))
    lab = open_lab(quiet=True)
    assert lab.d_model == 32 and lab.text_source.startswith("text.txt")


def test_half_precision_is_for_big_models_that_gain(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(machine, "_seconds", lambda dtype, device: 1.0 if dtype == torch.float32 else 0.1)
    assert machine.pick_dtype("auto", cpu, 10_000_000) == torch.float32
    assert machine.pick_dtype("auto", cpu, 2_000_000_000) == torch.bfloat16
    monkeypatch.setattr(machine, "_seconds", lambda dtype, device: 1.0)
    assert machine.pick_dtype("auto", cpu, 2_000_000_000) == torch.float32


def test_weights_are_counted_without_reading_them(tiny_gpt2, small_lab):
    assert models.n_params(tiny_gpt2.directory) == small_lab.n_params
    assert json.loads((tiny_gpt2.directory / "config.json").read_text())["n_layer"] == small_lab.n_layers


# --- the random twin ------------------------------------------------------------------------------------------------


def test_shuffled_weights_are_the_same_numbers_in_other_places(tiny_gpt2):
    mine, its = (models.load(tiny_gpt2.directory, torch.device("cpu"), torch.float32).weights for _ in range(2))
    models.shuffle_weights(its, seed=0)
    pairs = list(zip(mine.parameters(), its.parameters(), strict=True))
    for a, b in pairs:
        assert torch.equal(a.flatten().sort().values, b.flatten().sort().values)
    drawn = [(a, b) for a, b in pairs if a.ndim == 2]
    assert len(drawn) == 14 and not any(torch.equal(a, b) for a, b in drawn)  # two embeddings, four a block
    assert its.lm_head.weight is its.transformer.wte.weight  # tied weights stay tied


def test_a_random_twin_is_the_same_for_a_seed_and_leaves_the_model_alone(small_lab):
    before = small_lab.fingerprint
    del small_lab.__dict__["fingerprint"]  # it is kept once computed
    one, same, other = (random_twin(small_lab, seed=seed) for seed in (0, 0, 1))
    assert one.name == f"{small_lab.name} (random weights)" == random_twin(one).name
    assert (one.text, one.tokenizer.get_vocab()) == (small_lab.text, small_lab.tokenizer.get_vocab())
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert small_lab.fingerprint == before != one.fingerprint


def test_a_random_twin_of_a_real_model_knows_nothing(stories_lab):
    batch = next(stories_lab.batches(1000))
    losses = token_losses(random_twin(stories_lab).logits(batch.tokens), batch.tokens, batch.mask)
    assert losses.sum() / batch.mask[:, 1:].sum() > 5.5  # guessing all 512 tokens alike: 6.2; the trained one: 1.3
