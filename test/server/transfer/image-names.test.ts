/** Which names an entry of an archive gets, as containerd's image store of a transfer gives them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  checkReferences,
  entryNames,
  type ImageReference,
} from '../../../src/server/transfer/image-names.js';
import { IMAGE_NAME, REF_NAME } from '../../images/fixtures.js';

const DIGEST = `sha256:${'a'.repeat(64)}`;
const reference = (over: Partial<ImageReference>): ImageReference => ({
  ...{ name: 'base.io/app', isPrefix: true, allowOverwrite: false, addDigest: false, skipNamedDigest: false },
  ...over,
});

const cases: [what: string, Partial<ImageReference>, Record<string, string>, string[]][] = [
  ['a tag follows the prefix', {}, { [REF_NAME]: '1.0' }, ['base.io/app:1.0']],
  ['a full name that belongs to it stays', {}, { [REF_NAME]: 'base.io/app:2' }, ['base.io/app:2']],
  ['another full name is left out', {}, { [REF_NAME]: 'base.io/apple:2' }, []],
  ['unless any may be', { allowOverwrite: true }, { [REF_NAME]: 'other.io/x:2' }, ['other.io/x:2']],
  [
    'containerd’s annotation comes first',
    {},
    { [IMAGE_NAME]: 'base.io/app:3', [REF_NAME]: '1' },
    ['base.io/app:3'],
  ],
  ['and has to be a full name', {}, { [IMAGE_NAME]: '3', [REF_NAME]: '1' }, []],
  ['nothing without a name', {}, {}, []],
  ['with a digest', { addDigest: true }, {}, [`base.io/app@${DIGEST}`]],
  ['with both', { addDigest: true }, { [REF_NAME]: '1' }, ['base.io/app:1', `base.io/app@${DIGEST}`]],
  ['only the name', { addDigest: true, skipNamedDigest: true }, { [REF_NAME]: '1' }, ['base.io/app:1']],
  ['not a prefix', { isPrefix: false }, { [REF_NAME]: '1' }, []],
  ['an empty prefix gives no name', { name: '' }, { [REF_NAME]: '1' }, []],
  ['labels of an object’s own', {}, JSON.parse(`{"__proto__": "x"}`), []],
];

for (const [what, over, annotations, names] of cases) {
  test(what, () => assert.deepEqual(entryNames([reference(over)], annotations, DIGEST), names));
}

test('a hundred references are allowed, one more is not', () => {
  const references = Array.from({ length: 100 }, () => reference({}));
  checkReferences(references);
  assert.throws(() => checkReferences([...references, reference({})]), { kind: 'InvalidArgument' });
});
