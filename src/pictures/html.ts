/**
 * The page: one file with its script, its style and its data, which loads nothing. Called by draw.ts, and by the daemon for its headers.
 *
 * Names come from records, and so from anyone. They are in the page as JSON only, in which nothing can end its element, and
 * the script makes texts of them, never markup. The policy allows the script and the style of the page by their hashes, and nothing else.
 */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import type { Picture } from './picture.js';
import { pageData } from './view/data.js';

/** Beside the command's bundle, whose files are as deep as this one. */
const partOf = (name: string): Promise<string> =>
  readFile(new URL(`../bundle/${name}`, import.meta.url), 'utf8');

interface Parts {
  readonly script: string;
  readonly style: string;
  readonly policy: string;
}

let parts: Promise<Parts> | undefined;

async function readParts(): Promise<Parts> {
  const [script, style] = await Promise.all([partOf('page.js'), partOf('page.css')]);
  return { script, style, policy: policyOf(script, style) };
}

const hash = (text: string): string => `'sha256-${createHash('sha256').update(text).digest('base64')}'`;

const policyOf = (script: string, style: string): string =>
  `default-src 'none'; script-src ${hash(script)}; style-src ${hash(style)}; base-uri 'none'; form-action 'none'`;

/** The Content-Security-Policy of every page. */
export async function contentPolicy(): Promise<string> {
  parts ??= readParts();
  return (await parts).policy;
}

export async function html(picture: Picture): Promise<string[]> {
  parts ??= readParts();
  const { script, style, policy } = await parts;
  const data = await pageData(picture);
  return [
    `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>ebbtide: what holds the disk</title>
<style>${style}</style>
</head>
<body>
<noscript>This page needs JavaScript. It loads nothing.</noscript>
<main id="page"></main>
<script type="application/json" id="data">${inScript(data)}</script>
<script>${script}</script>
</body>
</html>
`,
  ];
}

/** JSON in which no name can end the element, begin a comment, or be a line end to a script. */
const inScript = (data: object): string =>
  JSON.stringify(data).replace(
    /[<>&\u2028\u2029]/g,
    (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
