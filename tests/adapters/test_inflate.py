from __future__ import annotations

import gzip
import sys
import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.adapters.inflate import MEMBERS_MAX, InflateProblem, inflate

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

TEXT = b'{"email": "lea@example.com"}\n' * 500


def raw_deflate(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(data) + stream.flush()


COMPRESS = {"gzip": gzip.compress, "deflate": zlib.compress, "zstd": zstd.compress}


@settings(deadline=None)
@given(st.binary(max_size=300_000), st.sampled_from(sorted(COMPRESS)))
def test_what_was_compressed_comes_back(data: bytes, encoding: str) -> None:
    assert inflate(COMPRESS[encoding](data), encoding, 300_000) == data


@settings(deadline=None)
@given(st.binary(max_size=10_000))
def test_deflate_without_its_header_is_understood(data: bytes) -> None:
    assert inflate(raw_deflate(data), "deflate", 10_000) == data


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_several_members_are_one_body(encoding: str) -> None:
    compress = COMPRESS[encoding]
    assert inflate(compress(b"a") + compress(b"") + compress(b"b" * 70_000), encoding, 70_001) == b"a" + b"b" * 70_000


def test_zeros_behind_gzip_are_padding() -> None:
    assert inflate(gzip.compress(TEXT) + bytes(700), "gzip", len(TEXT)) == TEXT


@pytest.mark.parametrize("name", ["", "identity", "Identity , "])
def test_identity_leaves_the_body_alone(name: str) -> None:
    assert inflate(TEXT, name, len(TEXT)) is TEXT


@pytest.mark.parametrize("name", ["X-GZIP", " gzip ", "identity, gzip"])
def test_the_name_is_read_generously(name: str) -> None:
    assert inflate(gzip.compress(TEXT), name, len(TEXT)) == TEXT


@pytest.mark.parametrize("encoding", ["identity", *COMPRESS])
def test_exactly_the_limit_passes_and_one_more_does_not(encoding: str) -> None:
    body = COMPRESS.get(encoding, bytes)(TEXT)
    assert inflate(body, encoding, len(TEXT)) == TEXT
    with pytest.raises(InflateProblem) as found:
        inflate(body, encoding, len(TEXT) - 1)
    assert found.value.kind == "too_large"


@pytest.mark.parametrize("encoding", sorted(COMPRESS))
def test_a_bomb_never_takes_more_memory_than_the_limit_and_a_chunk(encoding: str) -> None:
    limit = 4 * 2**20
    bomb = COMPRESS[encoding](bytes(100 * 2**20))
    tracemalloc.start()
    try:
        with pytest.raises(InflateProblem, match="larger than"):
            inflate(bomb, encoding, limit)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * limit


def test_a_window_larger_than_http_allows_is_refused() -> None:
    options = {zstd.CompressionParameter.window_log: 27, zstd.CompressionParameter.enable_long_distance_matching: 1}
    with pytest.raises(InflateProblem) as found:
        inflate(zstd.compress(bytes(20 * 2**20), options=options), "zstd", 2**30)
    assert found.value.kind == "corrupt"


@pytest.mark.parametrize("encoding", sorted(COMPRESS))
@pytest.mark.parametrize("spoil", ["cut", "garbage", "not compressed", "empty", "trailer"])
def test_a_damaged_body_is_corrupt(encoding: str, spoil: str) -> None:
    whole = COMPRESS[encoding](TEXT)
    body = {
        "cut": whole[:-5],
        "garbage": b"\xff" * 100,
        "not compressed": TEXT,
        "empty": b"",
        "trailer": whole + b"and more",
    }[spoil]
    with pytest.raises(InflateProblem) as found:
        inflate(body, encoding, 10**6)
    assert found.value.kind == "corrupt"


def test_a_body_of_empty_members_is_given_up() -> None:
    with pytest.raises(InflateProblem, match="parts"):
        inflate(gzip.compress(b"") * (MEMBERS_MAX + 1), "gzip", 10**6)


@pytest.mark.parametrize("encoding", ["br", "gzip, gzip", "deflate, gzip", "lea@example.com"])
def test_what_is_not_understood_is_named_without_quoting_it(encoding: str) -> None:
    with pytest.raises(InflateProblem) as found:
        inflate(TEXT, encoding, 10**6)
    assert found.value.kind == "unsupported"
    assert "lea@" not in str(found.value)
