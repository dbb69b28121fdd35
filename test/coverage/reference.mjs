// Writes docs/reference.md: every name that the package exports, with its declaration and its docstring, and those of its
// members. Made of the declarations in dist (`npm run build` first). `--check` writes nothing and fails when the page is out
// of date, or a name or a member has no docstring.
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { SyntaxKind } from 'typescript/unstable/ast';
import { API } from 'typescript/unstable/sync';

const repository = fileURLToPath(new URL('../../', import.meta.url));
const target = join(repository, 'docs', 'reference.md');
const { exports } = JSON.parse(readFileSync(join(repository, 'package.json'), 'utf8'));
const entries = Object.entries(exports).filter(([, { types }]) => types !== undefined);

/** What a name is for a reader, by the kind of its declaration. */
const kinds = new Map([
  [SyntaxKind.ClassDeclaration, 'class'],
  [SyntaxKind.InterfaceDeclaration, 'interface'],
  [SyntaxKind.TypeAliasDeclaration, 'type'],
  [SyntaxKind.FunctionDeclaration, 'function'],
  [SyntaxKind.VariableDeclaration, 'constant'],
]);

const config = join(repository, 'dist', 'reference.tsconfig.json');
const files = entries.map(([, { types }]) => join(repository, types));
if (!files.every(existsSync)) {
  console.error('the declarations are not built: run npm run build');
  process.exit(1);
}
writeFileSync(
  config,
  JSON.stringify({
    files,
    compilerOptions: {
      module: 'nodenext',
      target: 'es2023',
      types: ['node'],
      skipLibCheck: true,
      noEmit: true,
    },
  }),
);
const api = new API();
process.on('exit', () => {
  api.close();
  rmSync(config, { force: true });
});
const project = api.updateSnapshot({ openProjects: [config] }).getProject(config);
const { checker, program } = project;

/** The docstring before a node, without its stars; '' without one. */
function docOf(node, source) {
  const before = source.text.slice(node.pos, node.getStart(source));
  const comment = /\/\*\*((?:(?!\*\/)[\s\S])*)\*\/\s*$/.exec(before)?.[1] ?? '';
  return comment
    .split('\n')
    .map((line) => line.replace(/^\s*\* ?/, '').trimEnd())
    .join('\n')
    .trim();
}

const isInternal = (doc) => /^@internal\b/m.test(doc);
const isPrivate = (text) => /^(?:private|protected|#)/.test(text);

/** The members that a declaration has; a function's result is no declaration of its own. */
const listOf = (node) =>
  node.members ?? (node.kind === SyntaxKind.FunctionDeclaration ? undefined : node.type?.members);

/** One member of a class, an interface or an object type: how it is declared, and what is said of it. */
function membersOf(node, source) {
  const members = listOf(node) ?? [];
  const found = [];
  for (const member of members) {
    const text = member.getText(source).replace(/;$/, '');
    const doc = docOf(member, source);
    // The class says what a constructor needs to be told.
    if (isPrivate(text) || isInternal(doc) || member.kind === SyntaxKind.Constructor) continue;
    // Overloads, and a getter with its setter, are said once.
    const name = member.name?.getText(source) ?? text;
    const first = found.find((other) => other.name === name);
    if (first === undefined) found.push({ name, texts: [text], doc });
    else first.texts.push(text);
  }
  return found;
}

/** Without modifiers that say nothing here, and without what its members say. */
function headOf(node, kind, source) {
  const text = node.getText(source);
  const members = listOf(node);
  const list = members === undefined ? text : text.slice(0, text.indexOf('{')).trimEnd();
  return `${kind === 'constant' ? 'const ' : ''}${list
    .replace(/^export /, '')
    .replace(/^declare /, '')
    .replace(/;$/, '')}`;
}

/** With the words of what they implement, where they have none. */
const wordedMembers = (node, source) =>
  membersOf(node, source).map((member) => ({ ...member, doc: member.doc || inherited(node, member.name) }));

function describe(exported) {
  const symbol =
    exported.declarations.length > 0 && !isAlias(exported) ? exported : checker.getAliasedSymbol(exported);
  const declarations = symbol.declarations.map((handle) => handle.resolve(project)).filter(Boolean);
  return declarations.flatMap((node) => {
    const kind = kinds.get(node.kind);
    if (kind === undefined) return [];
    const source = sourceOf(node);
    // The comment of a constant stands before its statement.
    const outer = kind === 'constant' ? node.parent.parent : node;
    return [
      {
        kind,
        head: headOf(node, kind, source),
        doc: docOf(outer, source),
        members: wordedMembers(node, source),
      },
    ];
  });
}

const isAlias = (symbol) =>
  symbol.declarations.some((handle) => handle.resolve(project)?.kind === SyntaxKind.ExportSpecifier);

function sourceOf(node) {
  let at = node;
  while (at.parent !== undefined) at = at.parent;
  return at;
}

/** Docstrings of members, by declaration and name, for those that are implemented or extended. */
const known = new Map();

function inherited(node, name) {
  for (const { types } of node.heritageClauses ?? []) {
    for (const { expression } of types) {
      let base = checker.getSymbolAtLocation(expression);
      if (base === undefined) continue;
      if (
        isAlias(base) ||
        base.declarations.some((one) => one.resolve(project)?.kind === SyntaxKind.ImportSpecifier)
      )
        base = checker.getAliasedSymbol(base);
      for (const handle of base.declarations) {
        const declaration = handle.resolve(project);
        if (declaration === undefined) continue;
        if (!known.has(declaration)) known.set(declaration, membersOf(declaration, sourceOf(declaration)));
        const own = known.get(declaration).find((member) => member.name === name)?.doc ?? '';
        const said = own === '' ? inherited(declaration, name) : own;
        if (said !== '') return said;
      }
    }
  }
  return name === '[Symbol.asyncDispose]' ? 'Closes it, for `await using`.' : '';
}

const problems = [];
const lines = [
  '# Reference',
  '',
  'Every name that the package exports, with the words of its source. Made by `node test/coverage/reference.mjs`; a test fails',
  'when this page is out of date or a name has no words. [embedding.md](embedding.md) is the guide, [api.md](api.md) says where',
  'names differ from containerd’s. Sizes are bytes, times of day `bigint` nanoseconds since 1970, durations milliseconds',
  '(fields that end in `Ms`, and in `GCStats` all) unless a name says otherwise. Errors are `EbbtideError`s of the kind that is named.',
];
for (const [path, { types }] of entries) {
  const entry = path === '.' ? 'ebbtide' : `ebbtide/${basename(path)}`;
  lines.push('', `## ${entry}`);
  const source = program.getSourceFile(join(repository, types));
  const module = checker.getSymbolAtLocation(source);
  const names = [...checker.getExportsOfModule(module)].sort((a, b) => (a.name < b.name ? -1 : 1));
  for (const exported of names) {
    const described = describe(exported);
    if (described.length === 0)
      problems.push(`${entry}: ${exported.name} has no declaration that is known here`);
    lines.push('', `### ${exported.name}`);
    if (!described.some(({ doc }) => doc !== ''))
      problems.push(`${entry}: ${exported.name} has no docstring`);
    for (const { head, doc, members } of described) {
      lines.push('', '```ts', head, '```');
      if (doc !== '') lines.push('', doc);
      for (const { name, texts, doc: said } of members) {
        if (said === '') problems.push(`${entry}: ${exported.name}.${name} has no docstring`);
        const text = texts
          .map((one) => `\`${one.replace(/\/\*\*[\s\S]*?\*\//g, '').replace(/\s+/g, ' ')}\``)
          .join('<br>');
        lines.push('', `- ${text}  `, `  ${said.replace(/\n/g, '\n  ')}`);
      }
    }
  }
}

const page = `${lines.join('\n')}\n`;
if (process.argv.includes('--check')) {
  const committed = existsSync(target) ? readFileSync(target, 'utf8') : '';
  if (committed !== page)
    problems.push(`${relative(repository, target)} is out of date: run node test/coverage/reference.mjs`);
} else {
  writeFileSync(target, page);
}
for (const problem of problems) console.error(problem);
process.exitCode = problems.length > 0 ? 1 : 0;
