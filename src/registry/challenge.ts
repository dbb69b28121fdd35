/** What a registry asks for with a 401 (RFC 7235): schemes with their parameters. Pure. */

export interface Challenge {
  /** In lower case: `bearer`, `basic`, … */
  scheme: string;
  /** By names in lower case. */
  parameters: ReadonlyMap<string, string>;
}

const TOKEN = "[!#$%&'*+.^_`|~0-9A-Za-z-]+";
const PART = new RegExp(`\\s*,?\\s*(${TOKEN})(?:\\s*=\\s*(?:"((?:[^"\\\\]|\\\\.)*)"|(${TOKEN})))?`, 'y');

/** Of the values of `WWW-Authenticate`; what is not of this form ends a value. Bearer comes first. */
export function parseChallenges(values: readonly string[]): Challenge[] {
  const found: { scheme: string; parameters: Map<string, string> }[] = [];
  for (const value of values) {
    PART.lastIndex = 0;
    for (let part = PART.exec(value); part !== null; part = PART.exec(value)) {
      const [, name = '', quoted, bare] = part;
      const text = quoted?.replace(/\\(.)/g, '$1') ?? bare;
      if (text === undefined) found.push({ scheme: name.toLowerCase(), parameters: new Map() });
      else found.at(-1)?.parameters.set(name.toLowerCase(), text);
    }
  }
  const rank = ({ scheme }: Challenge): number => (scheme === 'bearer' ? 0 : 1);
  return found.sort((a, b) => rank(a) - rank(b));
}
