"""Damage: bytes, JSON and the arguments of calls, made odd at random."""

import copy
import json
import random
import struct
import zlib
from typing import Any

INTEGERS = (0, 1, 2, 3, 7, 127, 128, 255, 256, 32767, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**62)
DEEP = "@deep@"  # becomes 50,000 brackets, which no JSON encoder writes
LONG = "@long@"  # becomes an integer of 5,000 digits
NUMBERS = (0, -0.0, 1, -1, 0.5, 1e-320, 1e9, 2e8, 1e18, 1e308, 2**31, 2**53, 2**63, 2**64, 10**30, 10**400)
ODD = (
    *(*NUMBERS, *(-number for number in NUMBERS), float("nan"), float("inf"), float("-inf"), LONG, DEEP),
    *(None, True, False, "", " ", "x", "1", "NaN", "\x00", "\ud800", "\ufeff", "自行车", "a" * 5000, "a\nb"),
    *([], {}, [[]], [{}], {"": None}, [None], [1, 2], [1, 2, 3, 4], [[1, 2], [3]], [[1, 2], [3, 4]], [0] * 5000),
)


def mutated_bytes(rng: random.Random, content: bytes) -> bytes:
    """Return bytes of which some are changed, moved, repeated, cut away or added."""
    content = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 3, 8, 30))):
        start = rng.randrange(len(content) + 1)
        length = rng.choice((1, 1, 2, 4, 8, 64, 1000))
        kind = rng.randrange(8)
        if kind == 0 and start < len(content):
            content[start] ^= 1 << rng.randrange(8)
        elif kind == 1 and start < len(content):
            content[start] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
        elif kind == 2:
            form = rng.choice(("<H", ">H", "<I", ">I", "<Q", ">Q"))
            number = rng.choice(INTEGERS) % (1 << 8 * struct.calcsize(form))
            content[start : start + struct.calcsize(form)] = struct.pack(form, number)
        elif kind == 3:
            content[start:start] = rng.randbytes(length)
        elif kind == 4:
            content[start:start] = content[start : start + length]
        elif kind == 5:
            del content[start : start + length]
        elif kind == 6:
            end = rng.randrange(len(content) + 1)
            content[end:end] = content[start : start + length]
        elif rng.random() < 0.2:
            del content[start:]
    return bytes(content)


def with_checksums(png: bytes) -> bytes:
    """Return a PNG whose chunks have the checksums that belong to them, as far as chunks can be found."""
    content, place = bytearray(png), 8
    while place + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, place)
        end = place + 8 + length
        if end + 4 > len(content):
            break
        struct.pack_into(">I", content, end, zlib.crc32(content[place + 4 : end]))
        place = end + 4
    return bytes(content)


def mutated_json(rng: random.Random, content: bytes) -> bytes:
    """Return JSON of which some values or fields are others, are missing or doubled; at times its text is damaged."""
    root = [json.loads(content)]
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        _change(rng, *rng.choice(_places(root)), root)
    text = json.dumps(root[0], ensure_ascii=rng.random() < 0.5).replace(f'"{LONG}"', "9" * 5000)
    text = text.replace(f'"{DEEP}"', "[" * 50_000 + "]" * 50_000)
    changed = text.encode("utf-8", "surrogatepass")
    return mutated_bytes(rng, changed) if rng.random() < 0.1 else changed


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Return all containers of a JSON value, each with each of its keys."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    found = []
    for key in keys:
        found += [(value, key), *_places(value[key])]
    return found


def _change(rng: random.Random, container: Any, key: Any, root: Any) -> None:
    value = container[key]
    kind = rng.randrange(10)
    if kind < 5 or container is root:
        container[key] = copy.deepcopy(rng.choice(ODD))
    elif kind == 5:
        del container[key]
    elif kind == 6 and isinstance(container, list):
        container.insert(key, value)
    elif kind == 6:
        container[rng.choice(("", "x", f"{key}2"))] = container.pop(key)
    elif kind == 7:
        other, place = rng.choice(_places(root))
        container[key] = copy.deepcopy(other[place])
    elif isinstance(value, str):
        container[key] = mutated_bytes(rng, value.encode("utf-8", "replace")).decode("utf-8", "replace")
    elif isinstance(value, int | float):
        container[key] = rng.choice((value + 1, value - 1, -value, value // 2, value * 10, str(value), [value]))
    else:
        container[key] = rng.choice(([value], {"a": value}, str(value)))


# Arguments of calls -------------------------------------------------------------------------------------------------

SHAPES = (
    *("()", "0", "1", "2", "4", "5", "(0, 2)", "(1, 2)", "(2, 2)", "(1, 4)", "(3, 1)", "(5, 7)", "(1, 5, 7)"),
    *("(5, 7, 1)", "(5, 7, 3)", "(5, 7, 4)", "(3, 5, 7)", "(1, 2, 2)", "(0, 0)", "(1, 0, 3)", "(1, 1, 5, 7)"),
    *("(2, 1, 1, 1, 1, 1)", "(1, 3000)", "(3000, 1, 3)", "(64,) * 2"),
)
DTYPES = (
    *("bool", "u1", "i1", "u2", ">u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", ">f4", "f8", "longdouble"),
    *("c8", "c16", "O", "U3", "S3", "M8[s]", "m8[s]", "u1, f4", "V4"),
)
VALUES = (
    *("0", "1", "-1", "2", "127", "128", "255", "256", "65535", "2**31", "2**62", "0.5", "0.9", "1.5", "-10.0", "1e30"),
    *("nan", "inf", "-inf", "1e300", "1e308", "10**400", "1 + 2j", "None", "'1'", "'x'", "b'1'", "True"),
    *("np.datetime64('NaT')", "object()", "[]", "{}", "Decimal('0.5')", "Decimal('sNaN')", "Fraction(1, 3)"),
)
NUMPY_FORMS = (
    *("{}[::-1]", "{}[::2]", "{}.T", "np.asfortranarray({})", "{}.tolist()", "tuple({}.tolist())", "list({})"),
    *("np.ma.masked_array({}, mask=True)", "np.broadcast_to({}, (2, 5, 7))", "memoryview({})"),
    *("torch.as_tensor({})", "torch.as_tensor({}).to_sparse()", "torch.as_tensor({}).bfloat16()", "iter({})"),
    *("torch.as_tensor({}).float().requires_grad_()", "torch.as_tensor({}).to('meta')", "Image.fromarray({})"),
    *("{}.view(np.matrix)", "{}[None]", "{}[..., None]", "{}.astype('O')", "{}.tobytes()", "[{}, 1]", "[[1, 2], {}]"),
)
OTHER_VALUES = (
    *("None", "''", "'x'", "b''", "0", "1.5", "nan", "[]", "()", "{}", "{1: 2}", "{1, 2}", "[[]]", "[[1, 2], [3]]"),
    *("[(1, 2), 3]", "[1, [2]]", "[[1, 2], 'ab']", "['1', '2']", "[[1, 2, 3, 4]] * 2", "range(4)", "iter([1, 2])"),
    *("object()", "np.float64", "np", "len", "Ellipsis", "slice(1)", "loop", "[loop, loop]", "Odd()", "[Odd()]"),
    *("Path('x')", "'\\0'", "'a' * 5000", "Path('a' * 5000)", "'http:'", "'https://['", "'data:,x'", "'~no/x'", "'.'"),
    *("10**400", "[10**400]", "True", "np.True_", "np.array(5)", "np.array(None)", "np.random.default_rng(0)"),
)


def odd_value(rng: random.Random) -> str:
    """Return the source of a value that may be wrong in any way: a number, an array, a tensor, ragged lists ..."""
    kind = rng.random()
    if kind < 0.15:
        return rng.choice(OTHER_VALUES)
    if kind < 0.3:
        return _list(rng, rng.choice((1, 2, 2, 3)))
    shape, dtype = rng.choice(SHAPES), rng.choice(DTYPES)
    if rng.random() < 0.5:
        most = rng.choice((1, 2, 256, 65536))
        array = f"np.random.default_rng({rng.randrange(99)}).integers(0, {most}, {shape}).astype('{dtype}')"
    elif rng.random() < 0.3:
        array = f"np.random.default_rng({rng.randrange(99)}).normal(0, 5, {shape}).astype('{dtype}')"
    else:
        array = f"np.full({shape}, {rng.choice(VALUES)}, '{dtype}')"
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        array = rng.choice(NUMPY_FORMS).format(array)
    return array


def _list(rng: random.Random, depth: int) -> str:
    if not depth or rng.random() < 0.1:
        return rng.choice((*VALUES, *map(str, range(20))))
    length = rng.choice((0, 1, 2, 2, 2, 3, 4, 4))
    return f"[{', '.join(_list(rng, depth - 1) for _ in range(length))}]"


def odd_call(rng: random.Random, valid: str, arguments: dict[str, tuple[str, ...]]) -> str:
    """Return the source of a call of `valid`, a function's name: some of the arguments are valid, others odd."""
    parts = []
    for name, values in arguments.items():
        if rng.random() < 0.75:
            value = rng.choice(values) if rng.random() < 0.5 else odd_value(rng)
            parts.append(f"{name}={value}")
    return f"{valid}({', '.join(parts)})"
