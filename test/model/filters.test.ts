import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { EbbtideError } from '../../src/errors.js';
import { type Adaptor, adaptLabels, parseFilters, quoteForFilter } from '../../src/model/filters.js';

interface Thing {
  name: string;
  other?: string;
  labels?: Record<string, string>;
}

const adapt =
  (thing: Thing): Adaptor =>
  (path) => {
    if (path[0] === 'labels') return adaptLabels(thing.labels, path, 1);
    if (path.length > 1) return undefined;
    if (path[0] === 'name') return thing.name === '' ? undefined : thing.name;
    return path[0] === 'other' ? thing.other : undefined;
  };

const things: Thing[] = [
  { name: 'foo', labels: { foo: 'true' } },
  { name: 'bar' },
  { name: 'foo', labels: { foo: 'present', 'more complex label': 'present' } },
  { name: 'bar', labels: { bar: 'true' } },
  { name: 'fooer', labels: { 'more complex label with \\ and "': 'present' } },
  { name: 'fooer', labels: { 'more complex label with \\ and ".post': 'present' } },
  { name: 'baz', other: 'too complex, yo' },
  { name: 'bazo', other: 'abc' },
  { name: 'compound', labels: { foo: 'omg_asdf.asdf-qwer', x: '1' } },
];

const found = (...filters: string[]): number[] => {
  const filter = parseFilters(filters);
  return things.flatMap((thing, i) => (filter(adapt(thing)) ? [i] : []));
};
const everything = things.map((_, i) => i);

function parseError(filter: string): string {
  try {
    parseFilters([filter]);
  } catch (error) {
    assert.ok(error instanceof EbbtideError, filter);
    assert.equal(error.kind, 'InvalidArgument');
    assert.match(error.message, /parse error/);
    return error.message;
  }
  return assert.fail(`no error for ${filter}`);
}

test('[#66] given no filter or an empty one, when matched, then everything; several are a union', () => {
  assert.deepEqual(found(), everything);
  assert.deepEqual(found(''), everything);
  assert.deepEqual(found('name==none', ''), everything);
  assert.deepEqual(found('name==bar', 'labels.foo==true'), [0, 1, 3]);
  assert.deepEqual(found('name==none', 'name==neither'), []);
});

test('[#67] given labels, when asked for presence and equality, then bare values may have punctuation', () => {
  assert.deepEqual(found('labels.foo'), [0, 2, 8]);
  assert.deepEqual(found('labels.foo==true'), [0]);
  assert.deepEqual(found('labels.foo==omg_asdf.asdf-qwer'), [8]);
  assert.deepEqual(found('labels.constructor'), []);
  assert.deepEqual(found('labels'), []);
  assert.deepEqual(found('nosuchfield'), []);
});

test('[#68] given a difference, when matched, then objects without the field differ too', () => {
  assert.deepEqual(found('name!=bar'), [0, 2, 4, 5, 6, 7, 8]);
  assert.deepEqual(found('labels.x!=1'), [0, 1, 2, 3, 4, 5, 6, 7]);
  assert.deepEqual(found('labels.x!=""'), [8]);
  assert.deepEqual(found('labels.x==""'), []);
});

test('[#69] given patterns bare and quoted, when matched, then they mean the same where both can be written', () => {
  assert.deepEqual(found('other~=[abc]+,name!=foo'), [6, 7]);
  assert.deepEqual(found('other~=/[abc]{1,2}/'), [6, 7]);
  assert.deepEqual(found('other~=|^abc$|'), [7]);
  assert.deepEqual(found('other~="^abc$"'), [7]);
  assert.deepEqual(found('other~=/complex, yo/'), [6]);
  assert.deepEqual(found('name~=/^foo/'), [0, 2, 4, 5]);
  assert.deepEqual(found('name~=/a\\/b/'), []);
  assert.deepEqual(found('name~=/\\\\w{5,}/'), [4, 5, 8]);
  assert.match(parseError('other~=[abc]{1,2}'), /expected an operator|unexpected input/);
});

test('[#70] given quoted fields, when matched, then they name labels with any characters', () => {
  assert.deepEqual(found('labels."more complex label"'), [2]);
  assert.deepEqual(found('labels."more complex label"==present'), [2]);
  assert.deepEqual(found('labels."more complex label with \\\\ and \\"".post==present'), [5]);
  assert.deepEqual(found('labels."more complex label with \\\\ and \\"".post'), [5]);
  assert.deepEqual(found('labels."more complex label with \\\\ and \\""==present'), [4]);
});

test('[#70] given a label with a dot, when its path is written in any split, then it is the same label', () => {
  const labelled = adapt({ name: 'x', labels: { 'a.b': '1' } });
  for (const path of ['labels.a.b', 'labels."a.b"', 'labels.a."b"']) {
    assert.equal(parseFilters([path])(labelled), true, path);
  }
  assert.equal(adaptLabels({ 'a.b': '1' }, ['a', 'b']), '1');
});

test('[#71] given malformed filters, when parsed, then the error shows where and why', () => {
  const cases: [string, string][] = [
    ['labels.|foo|==x', '[labels. >|||< foo|==x]: invalid quote encountered'],
    ['labels.?"a"', '[labels. >|?|< "a"]: expected field or quoted'],
    ['name==foo,', '[name==foo,]: expected field or quoted'],
    ['labels.', '[labels.]: expected field or quoted'],
    ['image~=,x', '[image~= >|,|< x]: expected value or quoted'],
    ['labels.ns/key==value', '[labels.ns >|/|< key==value]: quoted literal not terminated'],
    ['labels.key==/value', '[labels.key== >|/|< value]: quoted literal not terminated'],
    ['name==/value/', '[name== >|/|< value/]: invalid quote encountered'],
    ['name===foo', '[name >|=|< ==foo]: unsupported operator "==="'],
    ['name=foo', '[name >|=|< foo]: unsupported operator "="'],
    ['name==foo ', '[name==foo >| |< ]: unexpected input:  '],
    ['name ,other', '[name  >|,|< other]: expected an operator ("=="|"!="|"~=")'],
    ['name~=.*', '[name~= >|.|< *]: expected value or quoted'],
    ['name==', '[name==]: expected value or quoted'],
    ['name==é é', '[name==é >| |< é]: unexpected input:  '],
    ['\u{1f600}', '[ >|\u{1f600}|< ]: expected field or quoted'],
    [' ', '[ ]: expected field or quoted'],
    ['name=="a"b', '[name=="a" >|b|< ]: unexpected input: b'],
    ['name=="a\nb"', '[name== >|"|< a\nb"]: quoted literal not terminated'],
  ];
  for (const [filter, expected] of cases) {
    assert.ok(parseError(filter).endsWith(`parse error: ${expected}`), parseError(filter));
  }
});

test('[#71] given illegal escapes, when parsed, then they are errors', () => {
  for (const literal of [
    '"\\q"',
    '"\\/"',
    '"\\|"',
    '"\\x4"',
    '"\\u12"',
    '"\\8"',
    '"\\400"',
    '"\\ud800"',
    '"\\U00110000"',
  ]) {
    assert.match(parseError(`name==${literal}`), /illegal (numeric )?escape sequence/, literal);
  }
  assert.match(parseError('name~=/\\d/'), /illegal escape sequence/);
  assert.match(parseError('name=="a\\'), /not terminated/);
  assert.match(parseError('name=="a\\"'), /not terminated/);
});

test('given legal escapes, when parsed, then they stand for their characters', () => {
  const value = '\x07\b\f\n\r\t\v\\"Aé€\u{1f600}é!';
  const literal = '"\\a\\b\\f\\n\\r\\t\\v\\\\\\"\\x41\\u00e9\\u20ac\\U0001F600\\xc3\\xa9\\041"';
  assert.equal(parseFilters([`name==${literal}`])(adapt({ name: value })), true);
});

test('[#72] given blanks before words, when parsed, then they are skipped', () => {
  assert.deepEqual(found('name == foo'), [0, 2]);
  assert.deepEqual(found('name==foo, labels.foo==true'), [0]);
  assert.deepEqual(found('  labels. foo ==\u00a0\ttrue'), [0]);
});

test('[#73] given an invalid pattern, when parsed, then no error, and nothing matches', () => {
  assert.deepEqual(found('name~=('), []);
  assert.deepEqual(found('name~=/(?=f)/'), []);
});

test('[#74] [#75] [#78] given fields that are present though empty, when matched, then presence decides', () => {
  const snapshot =
    (kind: string, parent: string): Adaptor =>
    ([field]) =>
      field === 'kind' ? kind : field === 'parent' ? parent : undefined;
  const matches = (filter: string, adaptor: Adaptor) => parseFilters([filter])(adaptor);
  assert.equal(matches('parent==""', snapshot('active', '')), true);
  assert.equal(matches('parent==""', snapshot('active', 'base')), false);
  assert.equal(matches('parent!=""', snapshot('active', '')), false);
  assert.equal(matches('parent!=""', snapshot('view', 'base')), true);
  assert.equal(matches('parent', snapshot('view', '')), true);
  assert.equal(matches('kind==committed', snapshot('committed', '')), true);
  assert.equal(matches('kind==Committed', snapshot('committed', '')), false);
  assert.equal(matches('size==3', snapshot('committed', '')), false);
  const digest = `sha256:${'0'.repeat(64)}`;
  assert.equal(
    matches(`digest==${digest}`, ([field]) => (field === 'digest' ? digest : undefined)),
    true,
  );
});

test('[#76] given a NUL or broken UTF-8, when parsed, then InvalidArgument', () => {
  assert.match(parseError('name==\0'), /unexpected null/);
  assert.match(parseError('\0'), /unexpected null/);
  assert.match(parseError('name=="\0"'), /unexpected null/);
  assert.match(parseError('name\0'), /unexpected null/);
  assert.match(parseError('name=="\ud800"'), /invalid UTF-8/);
  assert.match(parseError('\ufffd'), /invalid UTF-8/);
  parseError('name==a\0');
});

test('given a huge malformed filter, when parsed, then the message stays short', () => {
  assert.ok(parseError(`${'a'.repeat(30_000)}?${'b'.repeat(30_000)}`).length < 1000);
});

test('given any text, when quoted into a filter, then exactly that value matches', () => {
  const text = fc.string({ unit: 'binary', maxLength: 20 });
  fc.assert(
    fc.property(text, text, (value, key) => {
      const filter = parseFilters([`labels.${quoteForFilter(key)}==${quoteForFilter(value)}`]);
      assert.equal(filter(adapt({ name: '', labels: { [key]: value } })), true);
      assert.equal(filter(adapt({ name: '', labels: { [key]: `${value}x` } })), false);
    }),
  );
});

test('given any noise, when parsed, then it is a filter or an InvalidArgument', () => {
  const word = fc.constantFrom(
    'name',
    '.',
    ',',
    '==',
    '~=',
    '!',
    '"',
    '/',
    '|',
    '\\',
    ' ',
    'x',
    '\n',
    '\0',
    'é',
  );
  fc.assert(
    fc.property(fc.array(word, { maxLength: 12 }), (words) => {
      try {
        assert.equal(typeof parseFilters([words.join('')])(adapt(things[0]!)), 'boolean');
      } catch (error) {
        assert.ok(error instanceof EbbtideError && error.kind === 'InvalidArgument', String(error));
      }
    }),
  );
});

test('given filters over the limits of a call, when they are parsed, then InvalidArgument before any of them counts', () => {
  const refused = (filters: string[], what: RegExp): void => {
    assert.throws(
      () => parseFilters(filters),
      (error: Error) =>
        error instanceof EbbtideError && error.kind === 'InvalidArgument' && what.test(error.message),
    );
  };
  const many = (count: number, make: (n: number) => string): string[] =>
    Array.from({ length: count }, (_, n) => make(n));
  parseFilters(many(1000, (n) => `name==n${n}`));
  refused(
    many(1001, (n) => `name==n${n}`),
    /1001 filters/,
  );
  refused([`name==${'x'.repeat(70_000)}`], /characters/);
  refused([many(2001, () => 'name').join(',')], /2000 selectors/);
  refused(
    many(60, (n) => `name~=/[a-f0-9]{64}${n}/`),
    /4000 instructions/,
  );
});

test('given a thousand names, when a record is looked at, then its name is looked up, not compared', () => {
  const filters = Array.from({ length: 998 }, (_, n) => `name==n${n}`);
  const matches = parseFilters([...filters, 'labels.a==1', 'kind!=x,name==other']);
  const looks = (fields: Record<string, string>): [boolean, number] => {
    let count = 0;
    const found = matches((path) => {
      count++;
      return fields[path.join('.')];
    });
    return [found, count];
  };
  assert.deepEqual(looks({ name: 'n997' }), [true, 1]);
  assert.deepEqual(looks({ name: 'none', 'labels.a': '1' }), [true, 2]);
  assert.deepEqual(looks({ name: 'other', kind: 'y' }), [true, 4]);
  assert.deepEqual(looks({ name: 'none', kind: 'x' }), [false, 3]);
  assert.deepEqual(looks({}), [false, 4]);
});
