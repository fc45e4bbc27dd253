"""The wire formats, as bytes: what is written is what NVIDIA's and openpi's clients read, and what is refused."""

import io
import json
import pickle
import tracemalloc

import msgpack
import numpy as np
import pytest

from eval import client, openpi_client, wire


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def wrapped(data):
    return msgpack.packb({"endpoint": "get_action", "data": {"x": {"__ndarray_class__": True, "as_npy": data}}})


ARRAYS = [
    np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
    np.arange(6.0).reshape(2, 3).T,
    np.array(3.5, np.float32),
    np.array(["open the drawer", "shut"]),
    np.array([True, False]),
    np.arange(3, dtype=">i4"),
]


@pytest.mark.parametrize("array", ARRAYS)
@pytest.mark.parametrize("protocol", ["n1.5", "openpi"])
def test_arrays_of_the_clients_are_read_as_they_were(array, protocol):
    data = {"n1.5": client, "openpi": openpi_client}[protocol].pack({"x": array})
    found = wire.unpack(data, protocol)["x"]
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)
    again = wire.unpack(wire.pack({"x": array}, protocol), protocol)["x"]
    np.testing.assert_array_equal(again, array)


def test_a_modality_is_a_json_string_for_n15_and_a_map_for_n16():
    modality = wire.Modality([0], ["video.top"])
    content = {"delta_indices": [0], "modality_keys": ["video.top"]}
    first, second = (msgpack.unpackb(wire.pack({"video": modality}, p))["video"] for p in ("n1.5", "n1.6"))
    assert json.loads(first["as_json"]) == content
    assert second["as_json"] == content


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "msgpack"),
        (b"\xc1", "msgpack"),
        (msgpack.packb({"a": 1}) + b"\x00", "msgpack"),
        (pickle.dumps({"a": 1}), "msgpack"),
        (b"\xdd\xff\xff\xff\xff", "msgpack"),
        (b"\xdf\xff\xff\xff\xff", "msgpack"),
        (b"\xc6\xff\xff\xff\xff", "msgpack"),
        (msgpack.packb(msgpack.ExtType(5, b"code")), "msgpack"),
        (msgpack.packb({1: 2}), "msgpack"),
        (b"\x91" * 900 + b"\x90", "deeper"),
        (b"\x91" * 9000 + b"\x90", "msgpack"),
        (msgpack.packb([[[]] * 4000] * 3), "too many"),
        (wrapped(b""), "npy"),
        (wrapped("text"), "npy"),
        (wrapped(npy(np.arange(4))[:-1]), "does not fit"),
        (wrapped(npy(np.arange(4)) + b"\0"), "does not fit"),
        (wrapped(npy(np.array([{}], object))), r"\|O are not"),
        (wrapped(npy(np.zeros(2, [("a", "f4")]))), "npy"),
        (wrapped(npy(np.zeros(2, complex))), "not read"),
        (wrapped(npy(np.zeros((0, 3)))), "sizes > 0"),
        (wrapped(npy(np.zeros((1,) * 9))), "at most 8"),
        (wrapped(npy(np.zeros(3)).replace(b"(3,)", b"(-3)")), "npy"),
        (wrapped(npy(np.zeros(3)).replace(b"(3,), }", b"(3**9,)")), "npy"),
        (wrapped(npy(np.zeros(3)).replace(b"(3,), }  ", b"(9999,), }"[:9])), "npy"),
        (wrapped(b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535), "npy"),
        (wrapped(b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + b"("), "npy"),
        (wrapped(b"\x93NUMPY\x03\x00"), "npy"),
    ],
)  # fmt: skip
def test_bad_bytes_are_refused_in_words(data, said):
    with pytest.raises(wire.WireError, match=said):
        wire.unpack(data, "n1.5")


@pytest.mark.parametrize(
    "array",
    [
        {b"data": b"1234", b"dtype": "<f4", b"shape": [2]},
        {b"data": b"12345678", b"dtype": "|O", b"shape": [1]},
        {b"data": b"12345678", b"dtype": "M8[s]", b"shape": [1]},
        {b"data": b"", b"dtype": "<U0", b"shape": [1 << 60]},
        {b"data": b"1" * 8, b"dtype": "(2,)f4", b"shape": [1]},
        {b"data": b"", b"dtype": "no", b"shape": []},
        {b"data": b"1234", b"dtype": "<f4", b"shape": [-1]},
        {b"data": b"1234", b"dtype": "<f4", b"shape": [1.0]},
        {b"data": b"1234", b"dtype": "<f4", b"shape": 1},
        {b"data": "1234", b"dtype": "<f4", b"shape": [1]},
        {b"dtype": ["f4"] * 100},
    ],
)
def test_bad_arrays_of_openpi_are_refused(array):
    with pytest.raises(wire.WireError, match="__ndarray__"):
        wire.unpack(msgpack.packb({"x": {b"__ndarray__": True} | array}), "openpi")


def test_scalars_of_openpi_are_plain_numbers():
    assert wire.unpack(msgpack.packb({b"__npgeneric__": True, b"data": 2.5, b"dtype": "<f4"}), "openpi") == 2.5
    with pytest.raises(wire.WireError, match="__npgeneric__"):
        wire.unpack(msgpack.packb({b"__npgeneric__": True, b"data": [1], b"dtype": "<f4"}), "openpi")


def test_a_large_message_is_refused_before_it_is_read():
    with pytest.raises(wire.WireError, match="--max-bytes"):
        wire.unpack(wrapped(npy(np.zeros(100))), "n1.5", wire.Limits(max_bytes=500))


def test_what_a_header_claims_is_never_allocated():
    claims = [
        npy(np.zeros(3)).replace(b"(3,), }          ", b"(99999999999,), }"),
        npy(np.array(["abc"])).replace(b"<U3'", b"<U999999999'").replace(b"          \n", b"\n"),
    ]
    bomb = b"\xdc\x1f\xff" * 1000  # lists within lists, each said to have 8,191 entries
    many = msgpack.packb([[]] * 8000) + b""
    tracemalloc.start()
    for data in (*map(wrapped, claims), bomb, b"\xdc\x1f\xff" + many * 2000):
        with pytest.raises(wire.WireError):
            wire.unpack(data, "n1.5")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6
