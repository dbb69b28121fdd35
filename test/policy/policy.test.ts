import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EbbtideError, isKind } from '../../src/errors.js';
import { bytesOf, parsePolicy } from '../../src/policy/policy.js';
import { repositoryAndTag } from '../../src/policy/roots.js';
import { digest } from '../support/gc-world.js';

test('given a policy with every field, when read, then it is there in a form to work with', () => {
  const policy = parsePolicy({
    $schema: 'ebbtide.schema.json#/$defs/policy',
    every: '1h30m',
    highWater: '85%',
    lowWater: '70.5%',
    rules: [
      {},
      {
        name: 'ci',
        kinds: ['image', 'lease', 'container'],
        namespaces: ['ci'],
        filters: ['name~=^ci/'],
        stopped: ['labels.state==exited'],
        keepDuration: '48h',
        keepLast: 3,
        keepTagged: ['stable', 'v*.*-rc'],
        reservedSpace: '1.5G',
        maxUsedSpace: 1000,
        minFreeSpace: '10%',
      },
      { keepTagged: true },
    ],
  });
  const [plain, ci, tagged] = policy.rules;
  assert.ok(plain && ci && tagged);
  assert.equal(policy.everyMs, 5_400_000);
  assert.deepEqual([policy.highWater, policy.lowWater], [{ share: 0.85 }, { share: 0.705 }]);
  assert.deepEqual(
    [plain.name, plain.kinds, plain.keepLast, plain.minFreeSpace],
    ['rule 1', ['image'], 0, undefined],
  );
  assert.equal(ci.keepDuration, 48n * 3600n * 1_000_000_000n);
  const sizes = [ci.reservedSpace, ci.maxUsedSpace, ci.minFreeSpace].map(
    (size) => size && bytesOf(size, 5000),
  );
  assert.deepEqual(sizes, [1.5 * 1024 ** 3, 1000, 500]);
  const kept = ['stable', 'v1.2-rc', 'v-rc', 'v1.2', 'xv1.2-rc', 'unstable', ''].map((tag) =>
    ci.isKeptTag(tag),
  );
  assert.deepEqual(kept, [true, true, false, false, false, false, false]);
  assert.deepEqual(
    [plain.isKeptTag('any'), tagged.isKeptTag('any'), tagged.isKeptTag('')],
    [false, true, false],
  );
});

const rule = (fields: object): object => ({ rules: [{ name: 'ok' }, { name: 'ci', ...fields }] });

for (const [document, message] of [
  [null, /a policy is a JSON object/],
  [[], /a policy is a JSON object/],
  [{}, /the policy: rules must be a list of 1 to 64 rules/],
  [{ rules: [] }, /the policy: rules must be/],
  [{ rules: Array.from({ length: 65 }, () => ({})) }, /the policy: rules must be/],
  [{ rules: [{}], more: 1 }, /the policy has an unknown field "more"/],
  [{ rules: [{}], every: '10ms' }, /the policy: every must be a duration/],
  [{ rules: [{}], every: 600 }, /the policy: every must be/],
  [{ rules: [{}], highWater: '85%' }, /the policy: lowWater must be given with highWater/],
  [{ rules: [{}], lowWater: '101%' }, /the policy: lowWater must be bytes, a size like 10G, or a share/],
  [{ rules: [7] }, /rule 1 of the policy is not a JSON object/],
  [{ rules: [{ name: '' }] }, /rule 1: name must be a text/],
  [rule({ keeplast: 1 }), /rule 2 "ci" has an unknown field "keeplast"/],
  [rule({ kinds: ['blob'] }), /rule 2 "ci": kinds must be a list of image, lease, container/],
  [rule({ kinds: ['container'] }), /rule 2 "ci": stopped must be given/],
  [rule({ kinds: ['lease'] }), /rule 2 "ci": keepDuration must be given/],
  [rule({ namespaces: 'a' }), /rule 2 "ci": namespaces must be a list of texts/],
  [rule({ namespaces: Array(65).fill('a') }), /rule 2 "ci": namespaces must be a list of texts, 64 at most/],
  [rule({ keepTagged: ['*a'.repeat(600)] }), /rule 2 "ci": keepTagged must be true or a list/],
  [rule({ filters: ['name=='] }), /rule 2 "ci": filters: /],
  [rule({ stopped: ['x y'] }), /rule 2 "ci": stopped: /],
  [rule({ filters: ['name~=('] }), /rule 2 "ci": filters: the pattern "\(" is not valid/],
  [rule({ filters: ['name~=a{2000}'] }), /rule 2 "ci": filters: the pattern "a\{2000\}" is not valid/],
  [
    rule({ filters: ['nme!=keep'] }),
    /rule 2 "ci": filters: there is no field "nme"; there are name, target.digest/,
  ],
  [rule({ filters: ['name==a', 'labels.a,target.digset!=b'] }), /filters: there is no field "target.digset"/],
  [rule({ filters: ['id==a'] }), /filters: there is no field "id"/],
  [
    rule({ kinds: ['container'], stopped: ['label.state!=running'] }),
    /stopped: there is no field "label.state"/,
  ],
  [rule({ kinds: [] }), /rule 2 "ci": kinds must be a list of/],
  [rule({ namespaces: [] }), /rule 2 "ci": namespaces must be a list of texts, .* not empty/],
  [{ rules: [{}], highWater: '50%', lowWater: '60%' }, /the policy: lowWater must be below highWater/],
  [{ rules: [{}], highWater: '1G', lowWater: '2G' }, /the policy: lowWater must be below highWater/],
  [rule({ keepDuration: '2d' }), /rule 2 "ci": keepDuration must be a duration/],
  [rule({ keepDuration: '-1h' }), /rule 2 "ci": keepDuration must be/],
  [rule({ keepLast: -1 }), /rule 2 "ci": keepLast must be a whole number/],
  [rule({ keepLast: 1.5 }), /rule 2 "ci": keepLast must be/],
  [rule({ keepTagged: false }), /rule 2 "ci": keepTagged must be true or a list/],
  [rule({ minFreeSpace: -1 }), /rule 2 "ci": minFreeSpace must be/],
  [rule({ maxUsedSpace: '10 apples' }), /rule 2 "ci": maxUsedSpace must be/],
  [rule({ reservedSpace: Number.NaN }), /rule 2 "ci": reservedSpace must be/],
] as const) {
  test(`given ${JSON.stringify(document)?.slice(0, 90)}, when read as a policy, then rule and field are named`, () => {
    assert.throws(
      () => parsePolicy(document),
      (error) => {
        assert.ok(
          isKind(error, 'InvalidArgument') && error instanceof EbbtideError && error.remedy !== undefined,
        );
        assert.match(error.message, message);
        return true;
      },
    );
  });
}

test('given names of images, when taken apart, then repository and tag are what registries mean by them', () => {
  for (const [name, repository, tag] of [
    ['docker.io/library/debian:12', 'docker.io/library/debian', '12'],
    ['localhost:5000/app', 'localhost:5000/app', ''],
    ['localhost:5000/app:v1', 'localhost:5000/app', 'v1'],
    ['app@sha256:0123', 'app', ''],
    ['app:v1@sha256:0123', 'app', 'v1'],
    ['sha256:0123', 'sha256', '0123'],
    [digest('a'), '', ''],
  ] as const) {
    assert.deepEqual(repositoryAndTag(name), { repository, tag });
  }
});

test('given filters on every field that the lists of roots know, when read as a policy, then they are taken', () => {
  const filters = [
    'name',
    'target.digest==a',
    'target.mediatype!=b',
    'labels.a.b~=c',
    'annotations."x/y"',
    'id',
    'image',
    'runtime.name==r',
  ];
  const kinds = ['image' as const, 'lease' as const, 'container' as const];
  const [rule] = parsePolicy({ rules: [{ kinds, filters, stopped: ['id~=x'], keepDuration: '1h' }] }).rules;
  assert.deepEqual(rule?.filters, filters);
});
