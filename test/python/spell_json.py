#!/usr/bin/python3
"""Spells JSON texts in a form that can be compared.

The tests compare what arrives with what was published.  That both are read by
the same parser, or written by the same writer, would prove little; so this is
Python's parser, and its result has one spelling for each value, whatever way
the JSON was written:

    z t f           null, true, false
    n-15e-1         a number: its significant digits and a power of ten
    sc3a5           a string: its UTF-8 in hexadecimal digits
    [v,v]           an array
    {sk:v,sk:v}     an object, ordered by key; a key that is twice is an error

Reads a line with the base64 of a text for each value, and writes a line with
its spelling, or with "invalid: " and why.
"""
import base64
import json
import sys
from decimal import Decimal


class Number(str):
    """A number as it is written: none is too large or too exact."""


def spell_number(text):
    sign, digits, exponent = Decimal(text).as_tuple()
    number = ''.join(map(str, digits)).lstrip('0')
    stripped = number.rstrip('0')
    if stripped == '':
        return 'n0'
    return f"n{'-' if sign else ''}{stripped}e{exponent + len(number) - len(stripped)}"


def spell_string(text):
    return 's' + text.encode('utf-8').hex()


def spell(value):
    if isinstance(value, Number):
        return spell_number(value)
    if isinstance(value, str):
        return spell_string(value)
    if isinstance(value, list):
        return '[' + ','.join(map(spell, value)) + ']'
    if isinstance(value, dict):
        members = sorted((spell_string(key), spell(member)) for key, member in value.items())
        return '{' + ','.join(f'{key}:{member}' for key, member in members) + '}'
    return {None: 'z', True: 't', False: 'f'}[value]


def object_of(pairs):
    if len(dict(pairs)) < len(pairs):
        raise ValueError('a key is there twice')
    return dict(pairs)


def refuse(constant):
    raise ValueError(f'{constant} is not JSON')


for line in sys.stdin:
    try:
        print(spell(json.loads(
            base64.b64decode(line).decode('utf-8'), parse_int=Number, parse_float=Number,
            parse_constant=refuse, object_pairs_hook=object_of)))
    except ValueError as error:
        print('invalid:', error)
