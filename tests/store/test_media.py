"""Pictures, sounds and files: kept once by what they hold, outside the rows, and gone with the last who shows them."""

from __future__ import annotations

import base64
import io
import json
import os
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import pytest
from google.genai import types as google_types
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider

import loopkit
import loopkit.frameworks
from loopkit.config import Limits, Sampling
from loopkit.errors import NotFound
from loopkit.store.ring import Ring
from loopkit.testing import MemorySink, recording
from loopkit.types import ModelCall, Part
from loopkit.wire.media import lifted, name_of, named_in
from tests.observe.test_annotations import bytes_below
from tests.providers.contract import ROWS
from tests.providers.test_endpoints import _client

BY_NAME = {row.name: row for row in ROWS}
PICTURE = b"\x89PNG" + random.Random(1).randbytes(5_000)
SOUND = b"RIFF" + random.Random(2).randbytes(9_000)
LARGE = b"\x89PNG" + random.Random(3).randbytes(3_000_000)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def chat(*content: Any, answer: Any = None) -> Any:
    message = {"role": "assistant", "content": "A cat.", **(answer or {})}
    body = {**BY_NAME["openai chat"].recorded["body"], "choices": [{"index": 0, "message": message}]}
    client = loopkit.wrap(_client("sync", lambda request: httpx2.Response(200, json=body)))
    text = {"type": "text", "text": "What is it?"}
    return client.chat.completions.create(model="m", messages=[{"role": "user", "content": [text, *content]}])


def image_url(data: bytes) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{b64(data)}"}}


def only_call() -> ModelCall:
    (span,) = loopkit.open_store().spans(kind="llm")
    assert span.model_call is not None
    return span.model_call


def shown(part: Part) -> bytes:
    assert part.type == "uri"
    assert part.uri is not None
    return loopkit.open_store().media(part.uri)


def media_rows(home: Path) -> int:
    with loopkit.open_store(home).reading() as connection:
        return int(connection.execute("SELECT count(*) FROM medium").fetchone()[0])


def test_a_picture_lies_once_for_all_calls_that_show_it(stored: MemorySink) -> None:
    for _ in range(3):
        chat(image_url(PICTURE))
    store = loopkit.open_store()
    spans = store.spans(kind="llm")
    for span in spans:
        assert span.model_call is not None
        text, picture = span.model_call.input[0].parts
        assert (text.text if hasattr(text, "text") else text.content) == "What is it?"
        assert (picture.type, picture.mime_type, picture.content) == ("uri", "image/png", None)
        assert shown(picture) == PICTURE
        assert len(span.model_call.native_request or "") < 500
        assert span.content_status == "kept"
    assert media_rows(store.directory) == 1
    assert len({span.id for span in spans}) == 3


def test_one_larger_than_what_is_kept_of_a_text_is_whole(stored: MemorySink) -> None:
    chat(image_url(LARGE))
    call = only_call()
    assert shown(call.input[0].parts[1]) == LARGE
    request = json.loads(call.native_request or "")
    url = request["messages"][0]["content"][1]["image_url"]["url"]
    assert re.fullmatch(r"ni:///sha-256;[\w-]{43}\?ct=image/png", url)
    assert url.partition(";")[2][:43] == name_of(LARGE)


def test_a_long_text_beside_a_picture_is_cut_all_the_same(stored: MemorySink) -> None:
    chat(image_url(LARGE), {"type": "text", "text": "long " * 400_000})
    (span,) = loopkit.open_store().spans()
    assert span.content_status == "truncated"
    assert span.model_call is not None
    assert shown(span.model_call.input[0].parts[1]) == LARGE
    assert len(span.model_call.input[0].parts[2].content) < 60_000


def test_what_is_too_large_is_named_and_said_to_be_missing() -> None:
    with recording(store=True, limits=Limits(media_bytes=4_000)):
        chat(image_url(PICTURE))
        (span,) = loopkit.open_store().spans()
        assert span.content_status == "truncated"
        assert span.model_call is not None
        uri = span.model_call.input[0].parts[1].uri
        assert name_of(PICTURE) in (uri or "")
        with pytest.raises(NotFound, match="too large to be kept, or has been removed"):
            loopkit.open_store().media(uri or "")


def _claude(content: list[Any]) -> None:
    row = BY_NAME["anthropic messages"]
    client = loopkit.wrap(row.make("sync", lambda request: httpx2.Response(200, json=row.recorded["body"])))
    assert isinstance(client, anthropic.Anthropic)
    client.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": content}])


def _bedrock() -> None:
    row = BY_NAME["bedrock converse"]
    body = json.dumps(row.recorded["body"]).encode()
    client = loopkit.wrap(row.make("sync", lambda request: (200, {"content-type": "application/json"}, body)))
    image = {"image": {"format": "png", "source": {"bytes": PICTURE}}}
    client.converse(modelId="m", messages=[{"role": "user", "content": [image]}])


def _google() -> None:
    row = BY_NAME["google gemini"]

    client = loopkit.wrap(row.make("sync", lambda request: httpx2.Response(200, json=row.recorded["body"])))
    part = google_types.Part.from_bytes(data=PICTURE, mime_type="image/png")
    client.models.generate_content(model="m", contents=[part])


def _input_audio() -> None:
    chat({"type": "input_audio", "input_audio": {"data": b64(SOUND), "format": "wav"}})


def _transcription(file: Any) -> None:
    client = loopkit.wrap(_client("sync", lambda request: httpx2.Response(200, json={"text": "Hello"})))
    client.audio.transcriptions.create(model="m", file=file)


SHOWN: dict[str, tuple[Callable[[], None], bytes, str]] = {
    "anthropic image": (
        lambda: _claude(
            [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": b64(PICTURE)}}]
        ),
        PICTURE,
        "image/png",
    ),
    "anthropic document": (
        lambda: _claude(
            [{"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": b64(PICTURE)}}]
        ),
        PICTURE,
        "application/pdf",
    ),
    "bedrock": (_bedrock, PICTURE, "image/png"),
    "google": (_google, PICTURE, "image/png"),
    "input audio": (_input_audio, SOUND, "audio/wav"),
    "uploaded bytes": (lambda: _transcription(("sea.wav", SOUND, "audio/wav")), SOUND, "audio/*"),
    "uploaded stream": (lambda: _transcription(io.BytesIO(SOUND)), SOUND, "audio/*"),
}


@pytest.mark.parametrize("name", SHOWN)
def test_whatever_the_providers_way_of_sending_it(name: str, stored: MemorySink) -> None:
    call, data, mime_type = SHOWN[name]
    call()
    told = only_call()
    (part,) = [part for part in told.input[-1].parts if part.type == "uri"]
    assert shown(part) == data
    assert part.mime_type == mime_type


def test_a_file_on_disk_is_not_read_a_second_time(stored: MemorySink, tmp_path: Path) -> None:
    (tmp_path / "sea.wav").write_bytes(SOUND)
    with (tmp_path / "sea.wav").open("rb") as file:
        _transcription(file)
    (part,) = only_call().input[-1].parts
    assert (part.type, part.content, part.name) == ("file", None, str(tmp_path / "sea.wav"))


def test_what_a_model_made_is_kept_too(stored: MemorySink) -> None:
    pictures = {"created": 1, "data": [{"b64_json": b64(PICTURE)}, {"b64_json": b64(LARGE)}], "output_format": "png"}
    client = loopkit.wrap(_client("sync", lambda request: httpx2.Response(200, json=pictures)))
    client.images.generate(model="m", prompt="a cat")
    assert [shown(part) for part in only_call().output[0].parts] == [PICTURE, LARGE]


def test_speech_is_kept(stored: MemorySink) -> None:
    sound = httpx2.Response(200, content=SOUND, headers={"content-type": "audio/mpeg"})
    client = loopkit.wrap(_client("sync", lambda request: sound))
    assert client.audio.speech.create(model="m", voice="alloy", input="Hello").read() == SOUND
    (part,) = only_call().output[0].parts
    assert (shown(part), part.mime_type) == (SOUND, "audio/mpeg")


def test_an_answer_said_aloud_is_its_words_and_its_sound(stored: MemorySink) -> None:
    sound = {"id": "a-1", "data": b64(SOUND), "transcript": "A cat.", "expires_at": 1}
    chat(answer={"content": None, "audio": sound})
    answer = only_call().output[0]
    assert answer.text == "A cat."
    assert shown(answer.parts[1]) == SOUND


def test_a_streamed_answer_said_aloud_is_put_together(stored: MemorySink) -> None:
    pieces = [SOUND[at : at + 3001] for at in range(0, len(SOUND), 3001)]
    deltas: list[Any] = [{"audio": {"id": "a-1", "transcript": "A "}}, *({"audio": {"data": b64(p)}} for p in pieces)]
    deltas.append({"audio": {"transcript": "cat."}})
    chunks = [
        {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
         "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        for delta in deltas
    ]  # fmt: skip
    lines = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    events = httpx2.Response(200, text=lines, headers={"content-type": "text/event-stream"})
    client = loopkit.wrap(_client("sync", lambda request: events))
    for _ in client.chat.completions.create(model="m", messages=[{"role": "user", "content": "?"}], stream=True):
        pass
    answer = only_call().output[0]
    assert answer.text == "A cat."
    assert shown(answer.parts[1]) == SOUND


def test_what_functions_take_and_give_is_lifted_too(stored: MemorySink) -> None:
    with loopkit.span("look", input={"picture": f"data:image/png;base64,{b64(PICTURE)}"}) as span:
        span.set(output="a cat")
    (found,) = loopkit.open_store().spans()
    assert loopkit.open_store().media(found.input["picture"]) == PICTURE


def test_without_content_there_is_none_of_them(clean_environment: Path) -> None:
    with recording(store=True, content="off"):
        chat(image_url(PICTURE))
        loopkit.flush()
        home = Path(os.environ["LOOPKIT_HOME"])
        assert media_rows(home) == 0
        assert PICTURE[:200] not in bytes_below(home)


def test_others_get_the_reference(clean_environment: Path) -> None:
    with recording(store=True, content="export") as sink:
        chat(image_url(PICTURE))
        loopkit.flush()
        (batch,) = sink.batches
        exported = batch.spans[0].exported(content=True)
    assert b64(PICTURE).encode()[:100] not in exported
    assert named_in(exported) == {name_of(PICTURE)}


def test_those_of_a_sampled_out_trace_wait_with_it() -> None:
    with recording(store=True, sample=Sampling(tail=1e-9)):
        chat(image_url(PICTURE))
        loopkit.flush()
        store = loopkit.open_store()
        assert (store.spans(), media_rows(store.directory)) == ([], 0)
        loopkit.feedback(BY_NAME["openai chat"].recorded["body"]["id"], "good", True)
        loopkit.flush()
        assert shown(only_call().input[0].parts[1]) == PICTURE


def test_the_form_in_which_the_ring_keeps_them_comes_back(tmp_path: Path) -> None:
    from loopkit._ids import Clock
    from loopkit.capture.sampling import Held
    from loopkit.wire.encode import EncodedSpan

    ring = Ring(tmp_path, Sampling(tail=0.5), Clock())
    media = {name_of(PICTURE): PICTURE, name_of(SOUND): SOUND, name_of(b""): b""}
    spans = tuple(EncodedSpan(b"core", b"", b"", b"local", media=m) for m in (media, {}, media))
    assert ring.hold([Held("0" * 32, frozenset(("trace:1",)), b"", spans)]) == []
    found: list[Any] = []
    ring.release(["trace:1"], lambda held: found.extend(each for trace in held for each in trace.spans))
    assert [each.media for each in found] == [media, {}, media]
    ring.close()


def test_a_person_is_forgotten_with_their_pictures_but_others_keep_theirs() -> None:
    with recording(store=True):
        for user, data in (("ana", PICTURE), ("ana", SOUND), ("ben", PICTURE)):
            with loopkit.context(user_id=user):
                chat(image_url(data))
        loopkit.forget("ana")
        home = Path(os.environ["LOOPKIT_HOME"])
        assert shown(only_call().input[0].parts[1]) == PICTURE
        assert media_rows(home) == 1
        assert SOUND[:200] not in bytes_below(home)
        loopkit.forget("ben")
        assert media_rows(home) == 0
        assert PICTURE[:200] not in bytes_below(home)


def test_a_dataset_keeps_what_its_examples_show(stored: MemorySink) -> None:
    store = loopkit.open_store()
    with loopkit.span("look", input={"picture": f"data:image/png;base64,{b64(PICTURE)}"}):
        pass
    (span,) = store.spans()
    store.put("dataset", "d1", {"id": "d1", "examples": [{"input": span.input, "spans": [span.id]}]})
    store.prune(days=0)
    assert store.spans() == []
    assert store.media(span.input["picture"]) == PICTURE


_TEXTS = st.recursive(
    st.one_of(
        st.text(max_size=30),
        st.integers(),
        st.binary(min_size=760, max_size=900).map(b64),
        st.binary(min_size=760, max_size=900).map(lambda data: base64.urlsafe_b64encode(data).decode().rstrip("=")),
        st.binary(min_size=760, max_size=900).map(lambda data: f"data:image/png;base64,{b64(data)}"),
        st.sampled_from(["x" * 2000, "A" * 1027, "data:text/plain;base64," + "A" * 1025, "/" * 1024]),
    ),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["data", "bytes", "text", "content", "url", "ü"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(_TEXTS, st.booleans())
def test_what_is_lifted_can_be_put_back(value: Any, spaced: bool) -> None:
    text = json.dumps(value, ensure_ascii=False, separators=None if spaced else (",", ":"))
    lighter, media = lifted(text, 1 << 20)

    def back(found: Any) -> Any:
        if isinstance(found, dict):
            return {key: back(item) for key, item in found.items()}
        if isinstance(found, list):
            return [back(item) for item in found]
        if not isinstance(found, str) or not found.startswith("ni:///"):
            return found
        (name,) = named_in(found)
        data = media[name]
        assert data is not None
        assert name_of(data) == name
        mime_type = found.partition("?ct=")[2]
        return (mime_type, data)

    def same(found: Any, original: Any) -> bool:
        if isinstance(found, tuple):
            mime_type, data = found
            encoded = original.rpartition(",")[2] if mime_type else original
            forms = {b64(data), b64(data).rstrip("="), base64.urlsafe_b64encode(data).decode().rstrip("=")}
            return encoded in forms and (not mime_type or original.startswith(f"data:{mime_type};base64,"))
        if isinstance(found, dict):
            return found.keys() == original.keys() and all(same(found[k], original[k]) for k in found)
        if isinstance(found, list):
            return len(found) == len(original) and all(map(same, found, original))
        return bool(found == original)

    assert same(back(json.loads(lighter)), value)


def test_words_are_not_taken_for_media() -> None:
    words = (
        "x" * 5000,
        "ACGT" * 300,
        "ha" * 600,
        "MKTAYIAKQRQISFVKSHFSRQ" * 60,
        "4111111111111111/" * 64,
        "hunter2_" * 150,
    )
    for value in (
        make(word) for word in words for make in (lambda w: [w], lambda w: {"data": w}, lambda w: {"result": w})
    ):
        text = json.dumps(value)
        assert lifted(text, 1 << 20) == (text, {})


def test_words_in_a_data_url_stay_where_they_are_redacted() -> None:
    text = json.dumps({"url": "data:text/plain;base64," + b64(b"words " * 300)})
    assert lifted(text, 1 << 20) == (text, {})


@pytest.mark.parametrize(
    ("body", "count"),
    [
        ({"images": ["A", "B"]}, 2),
        ({"type": "blob", "mime_type": "audio/pcm", "modality": "audio", "content": "A"}, 1),
        ({"content": "A", "mime_type": "application/vnd.some-very-long-name.of-a-format+zip", "type": "blob"}, 1),
        ({"url": "data:image/svg+xml;base64,A"}, 1),
        ({"parts": [{"type": "text", "content": "A"}, {"type": "blob", "content": ""}]}, 0),
        ({"parts": [{"type": "blob", "content": ""}, {"content": "A", "type": "text"}]}, 0),
    ],
)
def test_media_without_a_head_are_known_by_where_they_stand(body: Any, count: int) -> None:
    text = json.dumps(body)
    for letter in "AB":
        text = text.replace(f'{letter}"', b64(random.Random(letter).randbytes(3_000)) + '"')
    assert len(lifted(text, 1 << 20)[1]) == count


def test_pictures_of_other_instrumentations_lie_there_too() -> None:
    said = [{"role": "user", "parts": [{"type": "blob", "mime_type": "image/png", "content": b64(PICTURE)}]}]
    told = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "x", "gen_ai.input.messages": json.dumps(said)}
    provider = TracerProvider()
    provider.add_span_processor(loopkit.frameworks.span_processor())
    with recording(store=True), loopkit.context(content="local"):
        with provider.get_tracer("theirs").start_as_current_span("chat", attributes=told):
            pass
        assert shown(only_call().input[0].parts[0]) == PICTURE


def test_a_large_span_of_others_loses_what_is_too_much_and_not_itself() -> None:
    said = [{"role": "user", "parts": [{"type": "text", "content": f"number {n} " * 5}]} for n in range(20_000)]
    told = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "x", "gen_ai.request.model": "m",
            "gen_ai.input.messages": json.dumps(said), "gen_ai.usage.input_tokens": 7}  # fmt: skip
    provider = TracerProvider()
    provider.add_span_processor(loopkit.frameworks.span_processor())
    with recording(store=True):
        with provider.get_tracer("theirs").start_as_current_span("chat", attributes=told):
            pass
        assert loopkit.flush(60)
        (span,) = loopkit.open_store().spans()
        assert (span.name, span.content_status) == ("chat", "truncated")
        assert only_call().usage.input_tokens == 7


def test_metadata_hold_no_media_and_stay_bounded(stored: MemorySink) -> None:
    with loopkit.context(picture=b64(LARGE)), loopkit.span("x") as span:
        span.set(mine=b64(LARGE))
    loopkit.flush()
    (batch,) = stored.batches
    assert len(batch.spans[0].core) < 200_000


def test_forgetting_one_keeps_the_pictures_of_another_in_a_dataset() -> None:
    with recording(store=True):
        store = loopkit.open_store()
        for user, data in (("ana", SOUND), ("ben", PICTURE)):
            with (
                loopkit.context(user_id=user),
                loopkit.span("look", input={"picture": f"data:image/png;base64,{b64(data)}"}),
            ):
                pass
        ana, ben = store.spans()
        examples = [{"id": each.user_id, "input": each.input, "spans": [each.id]} for each in (ana, ben)]
        store.put("dataset", "d1", {"id": "d1", "examples": examples})
        store.prune(days=0)
        assert loopkit.forget("ana").examples == 1
        (left,) = store.documents("dataset")
        assert [each["id"] for each in left["examples"]] == ["ben"]
        assert store.media(ben.input["picture"]) == PICTURE
        with pytest.raises(NotFound):
            store.media(ana.input["picture"])
