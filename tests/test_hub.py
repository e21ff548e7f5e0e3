"""The path of real GPT-2, through the real clients, to a hub on this machine: model, text, published SAE, faults."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow


def test_gpt2_from_the_hub_to_two_judged_saes(on_hub):
    """What notebook 04 does on ``gpt2``: stream, harvest, train, open the published one, judge both."""
    found = on_hub("""
        import torch
        from course_utils import evaluate, harvest, load_sae, open_lab, train_sae
        from course_utils.dictionaries import preprocessing_check, published_saes

        lab = open_lab("gpt2")
        found["from_hub"] = sorted({r.path.rsplit("/")[-1] for r, status, n in hub.log if r.method == "GET" and n
                                    and status < 300 and "api" not in r.path})
        acts = harvest(lab, HOOK, 20_000)
        found["documents"] = len(acts.doc.unique())
        found["streamed"] = hub.served("parquet"), hub.size(TEXT)
        ours = train_sae(acts, width=256, k=16, n_samples=60_000).sae
        names = published_saes(lab, "blocks.0.hook_resid_post")
        found["names"] = names
        theirs, wrong = load_sae(names[0]), load_sae(names[0], fold=False)
        for name, one in ("ours", ours), ("theirs", theirs), ("wrong", wrong):
            m = evaluate(lab, one, 2000, n_boot=100)
            found[name] = m.explained_variance.value, m.splice_error.value, m.ce_spliced.value - m.ce_clean.value
            found[name + "_check"] = preprocessing_check(lab, one)
        found["passes"] = hub.served("parquet")

        # The oracle: the model as the SAE's authors opened it, its weights centred, and the SAE as they published it.
        from sae_lens import SAE
        from transformer_lens import HookedTransformer
        model = HookedTransformer.from_pretrained("gpt2", device="cpu", center_writing_weights=True, fold_ln=True)
        tokens = next(lab.batches(600)).tokens
        _, cache = model.run_with_cache(tokens, names_filter=HOOK)
        latents = SAE.from_pretrained(RELEASE, HOOK).encode(cache[HOOK])
        folded = theirs.encode(lab.capture(tokens, HOOK))
        found["same_latents"] = float((folded - latents).abs().max() / latents.std())

        scaled = load_sae("gpt2-small-mlp-tm/blocks.1.hook_mlp_out")
        found["factor"] = float((sae()["W_dec"][0] / scaled.W_dec[0].numpy()).mean())
        found["scaled"] = evaluate(lab, scaled, 600, n_boot=50).explained_variance.value

        hub.forget()
        hub.fault = lambda request: Fault(503)  # gone
        again = open_lab("gpt2", text="hub:nobody/nothing", quiet=True)
        found["same_weights"] = again.fingerprint == lab.fingerprint
        found["same_sae"] = torch.equal(load_sae(names[0]).W_enc, theirs.W_enc)
        found["asked_again"] = len(hub.log)
        """)
    # Of the repository only what is needed, and of the text the first shard, once.
    assert {"model.safetensors", "vocab.json", "merges.txt", "config.json"} <= {*found["from_hub"]}
    assert not {"pytorch_model.bin", "64-8bits.tflite"} & {*found["from_hub"]}
    streamed, whole = found["streamed"]
    assert 0 < streamed < whole / 2 and found["passes"] < whole / 2
    assert found["names"][0] == "gpt2-small-res-jb/blocks.1.hook_resid_pre"
    explained, splice_error, cost = zip(*(found[name] for name in ("ours", "theirs", "wrong")), strict=True)
    assert explained[0] > 0.5 and explained[1] == pytest.approx(1, abs=1e-4) and explained[2] < 0.5
    assert max(splice_error) < 1e-2  # the splice check passes even for the one that is opened wrongly
    assert abs(cost[1]) < 1e-3 < abs(cost[2])  # nats; the weights are random, so a spoilt activation may even help
    assert [found[f"{name}_check"][:2] for name in ("ours", "theirs", "wrong")] == [
        [True, "raw"], [True, "raw"], [False, "centred"]]
    assert "This SAE reads centred activations" in found["wrong_check"][-1]
    assert found["same_latents"] < 1e-3
    assert found["factor"] == pytest.approx(2.3694, abs=1e-3) and found["scaled"] == pytest.approx(1, abs=1e-4)
    assert found["same_weights"] and found["same_sae"] and found["asked_again"] == 0


def test_faults_of_the_hub_are_mended_or_said(on_hub):
    found = on_hub("""
        import time
        from huggingface_hub.utils import _http
        _http.time.sleep = lambda seconds: None  # the client's own patience, half a minute, is not what is tested
        from course_utils import CourseError, load_sae, open_lab
        from course_utils.lab.stream import Stream

        def said(case, fault, what):
            hub.fault = fault
            start = time.monotonic()
            try:
                what()
                found[case] = "fine", time.monotonic() - start
            except CourseError as error:
                found[case] = str(error), time.monotonic() - start
            hub.forget()

        cdn = lambda fault, part, times=1: (
            lambda request: fault if request.path.startswith("/cdn") and part in request.path and request.number < times
            else None)
        name = f"{RELEASE}/{HOOK}"
        missing = Fault(404, headers={"X-Error-Code": "EntryNotFound"})
        said("no such model", lambda r: None, lambda: open_lab("nobody/nothing"))
        said("model cut once", cdn(Fault(cut=5_000_000), "model.safetensors"), lambda: open_lab("gpt2", quiet=True))
        said("no weights", lambda r: missing if "sae_weights" in r.path else None, lambda: load_sae(name))
        said("sae cut once", cdn(Fault(cut=100), "sae_weights"), lambda: load_sae(name))
        weights = next(Path(os.environ["HF_HOME"]).rglob("sae_weights.safetensors"))
        weights.write_bytes(weights.read_bytes()[:1000])
        said("sae damaged in the cache", lambda r: None, lambda: load_sae(name))
        said("release gone", lambda r: Fault(503), lambda: load_sae(f"gpt2-small-mlp-tm/blocks.0.hook_mlp_out"))
        said("unknown text", lambda r: None, lambda: next(Stream("nobody/nothing")()))
        said("other columns", lambda r: None, lambda: next(Stream("someone/numbers")()))

        read = lambda stream, n: [text for text, _ in zip(stream(), range(n))]
        whole = read(Stream("Skylion007/openwebtext"), 1500)
        said("text cut once", cdn(Fault(cut=1000), "parquet"),
             lambda: found.update(cut=read(Stream("Skylion007/openwebtext"), 1500) == whole))
        said("text, error 500 once", cdn(Fault(500), "parquet"),
             lambda: found.update(error=read(Stream("Skylion007/openwebtext"), 1500) == whole))
        stream = Stream("Skylion007/openwebtext")
        said("text gone after the first shard", lambda r: missing if "0001.parquet" in r.path else None,
             lambda: read(stream, 1500))
        found["kept"] = len(stream.kept)
        said("text there again", lambda r: None, lambda: found.update(resumed=read(stream, 1500) == whole))
        found["another format"] = len(read(Stream("someone/stories"), 500))
        """)
    assert "model='nobody/nothing' is not on the hub" in found["no such model"][0]
    assert found["model cut once"][0] == "fine"
    assert "could not be downloaded or read (the hub answered 404)" in found["no weights"][0]
    assert found["sae cut once"][0] == "fine" == found["sae damaged in the cache"][0]
    assert "could not be downloaded or read" in found["release gone"][0]
    assert "text='hub:nobody/nothing' is not on the hub" in found["unknown text"][0]
    assert "has no column 'text', only number" in found["other columns"][0]
    assert found["text cut once"][0] == "fine" and found["cut"]
    assert found["text, error 500 once"][0] == "fine" and found["error"]
    assert "broke off after 1,000 documents" in found["text gone after the first shard"][0] and found["kept"] == 1000
    assert found["text there again"][0] == "fine" and found["resumed"]
    assert found["another format"] == 400
