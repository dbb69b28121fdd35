/** Examples of the verbs, for their help and the manual page. */
import type { Command } from 'commander';
import { commandsIn, isLeaf, pathOf } from './command-tree.js';

/** By the verb's path. What is before or after a pipe is another command. */
export const examples: Readonly<Record<string, readonly string[]>> = {
  init: ['ebbtide init', 'ebbtide init --root /srv/ebbtide'],
  serve: [
    'ebbtide serve --address /run/ebbtide/ebbtide.sock',
    'ebbtide serve --metrics 127.0.0.1:9464 --gc on-request',
  ],
  doctor: ['ebbtide doctor', 'ebbtide doctor --check'],
  check: ['ebbtide check', 'ebbtide check --hash --repair'],
  backup: ['ebbtide backup /backup/monday', 'ebbtide backup /backup/tuesday --base /backup/monday'],
  restore: ['ebbtide restore /backup/tuesday --hash', 'ebbtide restore /backup/tuesday --root /srv/ebbtide'],
  compact: ['ebbtide compact', 'ebbtide compact --containerd-root /var/lib/containerd -o /root/meta.db'],
  'hosts ls': ['ebbtide hosts ls --etcd http://127.0.0.1:2379'],
  'hosts rm': ['ebbtide hosts rm node-7 --sync'],
  import: [
    'ebbtide import debian.tar --unpack overlayfs',
    'docker save debian:12 | ebbtide import -',
    'ebbtide import layout --platform linux/arm64 --unpack overlayfs',
  ],
  export: [
    'ebbtide export docker.io/library/debian:12 -o debian.tar',
    'ebbtide export docker.io/library/debian:12 - | docker load',
    'ebbtide export app:1 app:2 -o layout --platform linux/amd64',
  ],
  'images ls': [
    'ebbtide images ls',
    'ebbtide images ls -q labels.env==test',
    "ebbtide images ls --format '{name} {target.digest}'",
  ],
  'images show': ['ebbtide images show docker.io/library/debian:12'],
  'images tag': ['ebbtide images tag docker.io/library/debian:12 base:latest --force'],
  'images label': ['ebbtide images label base:latest env=test owner='],
  'images rm': ['ebbtide images rm base:latest --sync', 'ebbtide images ls -q | xargs ebbtide images rm'],
  'content ls': ['ebbtide content ls', 'ebbtide content ls --ingests'],
  'content info': ['ebbtide content info 4f53cd'],
  'content cat': ['ebbtide content cat sha256:4f53cd | jq .'],
  'content rm': ['ebbtide content rm 4f53cd'],
  'snapshots ls': ['ebbtide snapshots ls kind==active', 'ebbtide snapshots ls -s native -q'],
  'snapshots info': ['ebbtide snapshots info web'],
  'snapshots prepare': ['ebbtide snapshots prepare web 9d3c1f'],
  'snapshots view': ['ebbtide snapshots view look 9d3c1f'],
  'snapshots commit': ['ebbtide snapshots commit web-1 web --label stage=done'],
  'snapshots mounts': ['ebbtide snapshots mounts web /mnt'],
  'snapshots mount': ['ebbtide snapshots mount web /mnt'],
  'snapshots umount': ['ebbtide snapshots umount /mnt'],
  'snapshots rm': ['ebbtide snapshots rm web'],
  'containers ls': ['ebbtide containers ls -q'],
  'containers create': [
    'ebbtide containers create web --image docker.io/library/debian:12 --label tier=front',
  ],
  'containers rm': ['ebbtide containers rm web'],
  'policy show': ['ebbtide policy show --file policy.json'],
  'policy plan': ['ebbtide policy plan --file policy.json --kept', 'ebbtide policy plan -o plan.json'],
  'policy apply': ['ebbtide policy apply plan.json', 'ebbtide policy apply --file policy.json'],
  'leases ls': ['ebbtide leases ls', "ebbtide leases ls --format '{id} {createdAt}'"],
  'leases create': ['ebbtide leases create keep --expires 24h', 'ebbtide leases create --flat'],
  'leases add': ['ebbtide leases add keep content 4f53cd', 'ebbtide leases add keep snapshots/overlayfs web'],
  'leases rm': ['ebbtide leases rm keep --sync'],
  'namespaces ls': ['ebbtide namespaces ls -q'],
  'namespaces create': ['ebbtide namespaces create ci --label team=build'],
  'namespaces label': ['ebbtide namespaces label ci team=release'],
  'namespaces rm': ['ebbtide namespaces rm ci'],
  du: [
    'ebbtide du -A',
    'ebbtide du --containerd-root /var/lib/containerd',
    'ebbtide du --by image --without base:latest app:1',
    'ebbtide du --by none',
  ],
  why: ['ebbtide why 4f53cd', 'ebbtide why base:latest --all'],
  gc: [
    'ebbtide gc --dry-run',
    'ebbtide gc --plan plan.json && ebbtide gc --apply plan.json',
    'ebbtide gc --full --max-bytes 10G',
  ],
  history: ['ebbtide history', 'ebbtide history --names --limit 1'],
  verify: ['ebbtide verify', 'ebbtide verify --hash --containerd-root /var/lib/containerd'],
  heal: ['ebbtide heal', 'ebbtide heal --containerd-root /var/lib/containerd -o /var/lib/containerd.healed'],
  salvage: ['ebbtide salvage --containerd-root /var/lib/containerd -o /root/meta.db'],
  orphans: [
    'ebbtide orphans --containerd-root /var/lib/containerd',
    'ebbtide orphans --containerd-root /var/lib/docker --older-than 24h',
  ],
  demo: ['ebbtide demo', 'ebbtide demo layout -s native --keep'],
  synth: ['ebbtide synth --root /tmp/dense --records 100k'],
  schema: ['ebbtide schema > ebbtide.schema.json', 'ebbtide schema images ls'],
  completion: [
    'source <(ebbtide completion bash)',
    // biome-ignore lint/suspicious/noTemplateCurlyInString: it is zsh's
    'ebbtide completion zsh > "${fpath[1]}/_ebbtide"',
    'ebbtide completion fish > ~/.config/fish/completions/ebbtide.fish',
  ],
};

/** Adds the examples to the help of each verb. */
export function addExamples(program: Command): void {
  for (const command of commandsIn(program)) {
    const path = pathOf(command);
    if (path === '' || !isLeaf(command)) continue;
    const lines = (examples[path] ?? []).map((line) => `  ${line}`);
    command.addHelpText(
      'after',
      ['', 'Examples:', ...lines, '', 'ebbtide --help shows the options of every verb.'].join('\n'),
    );
  }
}
