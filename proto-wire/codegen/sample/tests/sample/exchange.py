"""Reads the messages that the Rust side wrote, checks them against its own, and writes them back.

Called by python.rs with the folder that holds the generated modules and the file `ours`.
"""

import sys
from pathlib import Path

folder = Path(sys.argv[1])
sys.path.insert(0, str(folder))

import kinds_pb2 as pb  # noqa: E402
import trial_pb2  # noqa: E402
from google.protobuf import json_format  # noqa: E402

Nested = pb.Everything.Nested


def nested(number):
    return Nested(number=number, deep=Nested.Deep(text=f"deep {number} \U0001f30a", mood=Nested.Deep.GLOOMY))


CHOICES = [
    {},
    {"as_text": "a text"},
    {"as_text": ""},
    {"as_nested": nested(-5)},
    {"as_number": -(2**31)},
    {"as_bytes": b"\x00\xff\x80"},
    {"as_color": pb.BLUE},
    {"as_nothing": {}},
]


def full(choice):
    message = pb.Everything(
        a_double=2.2250738585072014e-308,
        a_float=-1.5e30,
        an_int32=-(2**31),
        an_int64=-(2**63),
        a_uint32=2**32 - 1,
        a_uint64=2**64 - 1,
        a_sint32=-(2**31),
        a_sint64=2**63 - 1,
        a_fixed32=2**32 - 1,
        a_fixed64=2**64 - 1,
        a_sfixed32=-1,
        a_sfixed64=-(2**63),
        a_bool=True,
        a_string="h\u00e9llo \0 \U0010ffff",
        some_bytes=bytes(range(256)),
        maybe_int32=0,
        maybe_string="",
        maybe_bytes=b"",
        maybe_color=pb.COLOR_UNKNOWN,
        maybe_bool=False,
        packed=[0, -1, 2**31 - 1, -(2**31)],
        not_packed=[0, -1, -(2**63)],
        words=["", "two"],
        blobs=[b"", b"\xff"],
        nested_list=[Nested(), nested(1)],
        colors=[pb.COLOR_UNKNOWN, pb.BLUE],
        doubles=[0.0, -0.5, 1.7976931348623157e308],
        by_name={"": 0, "low": -(2**63)},
        by_truth={True: pb.GREEN, False: pb.COLOR_UNKNOWN},
        by_signed={-(2**63): b"m", 0: b""},
        color=pb.GREEN,
        nested=nested(2**31 - 1),
        inner=pb.Everything(a_string="inner", color=pb.RED),
        mood=Nested.Deep.GLOOMY,
        last=7,
        **choice,
    )
    message.by_number[0].SetInParent()
    message.by_number[-7].CopyFrom(nested(7))
    message.at.seconds = 1_764_000_000
    message.at.nanos = 999_999_999
    # Words of Rust, and one of Python.
    message.type = "a keyword"
    setattr(message, "match", 3)
    setattr(message, "self", True)
    return message


lines = []
ours = (folder / "ours").read_text().split("\n")
assert len(ours) == len(CHOICES), len(ours)
for line, choice in zip(ours, CHOICES):
    read = pb.Everything.FromString(bytes.fromhex(line))
    own = full(choice)
    assert read == own, f"read:\n{read}\nown:\n{own}"
    assert read.WhichOneof("choice") == next(iter(choice), None)
    assert read.HasField("maybe_int32") and not pb.Everything().HasField("maybe_int32")
    again = json_format.Parse(json_format.MessageToJson(read), pb.Everything())
    lines += [read.SerializeToString().hex(), again.SerializeToString().hex(), own.SerializeToString().hex()]

# A message of this year over a program of last year.
new = pb.OfThisYear(shade=pb.OfThisYear.DARK, shades=[7, 0], new_field="new")
old = pb.OfLastYear.FromString(new.SerializeToString())
lines.append(old.SerializeToString().hex())

options = trial_pb2.DESCRIPTOR.services_by_name["Trial"].methods_by_name["Do"].GetOptions()
import moorgate.options_pb2 as moorgate  # noqa: E402

assert options.Extensions[moorgate.method].id == 0x7101, options
(folder / "theirs").write_text("\n".join(lines) + "\n")
