"""JSON that is still coming, character by character: whether it can still become JSON. RFC 8259, as Python's json reads
it, without its constants NaN and Infinity.
"""

from __future__ import annotations

from typing import Final

_SPACE: Final = " \t\n\r"
_ESCAPED: Final = '"\\/bfnrt'
_HEX: Final = frozenset("0123456789abcdefABCDEF")
_WORDS: Final = {"t": "rue", "f": "alse", "n": "ull"}
_DEEPEST: Final = 900
_LONGEST_NUMBER: Final = 4_300
"""Digits that Python makes a number of."""
_DIGITS: Final = dict.fromkeys("0123456789", "integer")
_FRACTION: Final = dict.fromkeys("0123456789", "fraction")
_EXPONENT: Final = dict.fromkeys("0123456789", "exponent")
_POWER: Final = {"e": "e", "E": "e"}
_NUMBER: Final = {
    "": {"-": "minus", **_DIGITS, "0": "zero"},
    "minus": {**_DIGITS, "0": "zero"},
    "zero": {".": "point", **_POWER},
    "integer": {**_DIGITS, ".": "point", **_POWER},
    "point": _FRACTION,
    "fraction": {**_FRACTION, **_POWER},
    "e": {"+": "sign", "-": "sign", **_EXPONENT},
    "sign": _EXPONENT,
    "exponent": _EXPONENT,
}
"""What may follow in a number, and what it is then."""
_WHOLE_NUMBERS: Final = ("zero", "integer", "fraction", "exponent")


class JsonScanner:
    """One text. `end` is where its value is whole, once it is."""

    def __init__(self) -> None:
        self.length = 0
        self.end: int | None = None
        self._open: list[str] = []
        self._wants = "value"
        """value, value or ], key, key or }, colon, comma, nothing."""
        self._is_key = False
        self._string = ""
        """Where it is in a string: in it, after a backslash, or how many hexadecimal digits are wanted."""
        self._number = ""
        self._digits = 0
        self.number_at: int | None = None
        """Where the number begins that is the whole value: each of its beginnings is JSON too."""
        self._word = ""
        """What is left of true, false or null."""

    def takes(self, char: str) -> bool:
        """Whether it may come next."""
        taken = self._takes(char)
        self.length += taken
        return taken

    def ends(self) -> bool:
        """Whether it is JSON as it is."""
        if self._number in _WHOLE_NUMBERS:
            self._value_ended(self.length)
            self._number = ""
        return self._wants == "nothing" and not (self._string or self._number or self._word)

    def _takes(self, char: str) -> bool:
        if self._string:
            return self._in_string(char)
        if self._word:
            return self._in_word(char)
        if self._number:
            following = _NUMBER[self._number].get(char)
            if following is not None:
                self._number = following
                self._digits += 1
                return self._digits <= _LONGEST_NUMBER
            if self._number not in _WHOLE_NUMBERS:
                return False
            self._number = ""
            self._value_ended(self.length)
        return char in _SPACE or self._between(char)

    def _in_string(self, char: str) -> bool:
        if self._string == "in":
            if char == '"':
                self._string = ""
                self._string_ended()
            elif char == "\\":
                self._string = "escape"
            return char >= " "
        if self._string == "escape":
            self._string = "4" if char == "u" else "in"
            return char == "u" or char in _ESCAPED
        left = int(self._string) - 1
        self._string = str(left) if left else "in"
        return char in _HEX

    def _string_ended(self) -> None:
        if self._is_key:
            self._is_key = False
            self._wants = "colon"
        else:
            self._value_ended(self.length + 1)

    def _in_word(self, char: str) -> bool:
        if char != self._word[0]:
            return False
        self._word = self._word[1:]
        if not self._word:
            self._value_ended(self.length + 1)
        return True

    def _between(self, char: str) -> bool:
        if char in "]}":
            return self._closed(char)
        if self._wants.startswith("key"):
            self._is_key, self._string = True, "in"
            return char == '"'
        if self._wants == "colon":
            self._wants = "value"
            return char == ":"
        if self._wants == "comma":
            self._wants = "key" if self._open[-1] == "}" else "value"
            return char == ","
        return self._wants.startswith("value") and self._value_began(char)

    def _closed(self, char: str) -> bool:
        is_due = self._wants == "comma" or self._wants.endswith(char)
        if not is_due or not self._open or self._open.pop() != char:
            return False
        self._value_ended(self.length + 1)
        return True

    def _value_began(self, char: str) -> bool:
        if char in "{[":
            self._open.append("}" if char == "{" else "]")
            self._wants = "key or }" if char == "{" else "value or ]"
            return len(self._open) <= _DEEPEST
        if char == '"':
            self._string = "in"
        elif char in _WORDS:
            self._word = _WORDS[char]
        else:
            self._number = _NUMBER[""].get(char, "")
            self._digits = 1
            if not self._open:
                self.number_at = self.length
            return bool(self._number)
        return True

    def _value_ended(self, at: int) -> None:
        self._wants = "comma" if self._open else "nothing"
        if not self._open:
            self.end = at
