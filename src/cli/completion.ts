/**
 * Completion scripts, generated from the tree of verbs: a table of the words that can follow a path of verbs,
 * and of the values of options and arguments, with one function for each shell.
 */
import type { Argument, Command, Option } from 'commander';
import { commandsIn, isLeaf, isPath, pathOf, valueName } from './command-tree.js';

export const shells = ['bash', 'zsh', 'fish'] as const;
export type Shell = (typeof shells)[number];

const FILES = '@files';
/** A value that cannot be completed. */
const ANY = '@any';

interface Place {
  readonly path: string;
  readonly command: Command;
  readonly verbs: readonly Command[];
  readonly options: readonly Option[];
  /** `@files`, the choices, or nothing. */
  readonly argument: string;
}

export function completionScript(program: Command, shell: Shell): string {
  const places = [...commandsIn(program)].map(placeOf);
  const script = { bash, zsh, fish }[shell];
  return `# ${shell} completion of ebbtide, printed by: ebbtide completion ${shell}\n${script(places)}`;
}

function placeOf(command: Command): Place {
  const argument = command.registeredArguments.map(valueOfArgument).find((value) => value !== ANY) ?? '';
  return {
    path: pathOf(command),
    command,
    verbs: command.commands,
    options: command.options.filter(({ hidden }) => !hidden),
    argument: isLeaf(command) ? argument : '',
  };
}

const valueOfArgument = (argument: Argument): string => valueNamed(argument.argChoices, argument.name());

function valueOfOption(option: Option): string | undefined {
  if (!option.required && !option.optional) return undefined;
  return valueNamed(option.argChoices, valueName(option));
}

const valueNamed = (choices: readonly string[] | undefined, name: string): string =>
  choices?.join(' ') ?? (isPath(name) ? FILES : ANY);

const namesOf = ({ short, long }: Option): string[] =>
  [short, long].filter((name) => name !== undefined && name !== null) as string[];

/** Every verb has these; they are listed with those of the command itself. */
const HELP = ['--help', '-h'];

// ------------------------------------------------------------------------------------------------ bash and zsh

/**
 * Entries of the associative arrays `words`, `options`, `values` and `arguments`, which both shells read
 * alike.
 */
function tables(places: readonly Place[]): string {
  const entries = (name: string, pairs: readonly (readonly [string, string])[]): string =>
    [`  ${name}=(`, ...pairs.map(([key, value]) => `    [${quoted(key)}]=${quoted(value)}`), '  )'].join(
      '\n',
    );
  return [
    entries(
      '_ebbtide_verbs',
      places.map(({ path, verbs }) => [keyOf(path), verbs.map((v) => v.name()).join(' ')]),
    ),
    entries(
      '_ebbtide_options',
      places.map(({ path, options }) => [
        keyOf(path),
        [...options.flatMap(namesOf), ...(path === '' ? HELP : [])].join(' '),
      ]),
    ),
    entries(
      '_ebbtide_values',
      places.flatMap(({ path, options }) =>
        options.flatMap((option) => {
          const value = valueOfOption(option);
          return value === undefined
            ? []
            : namesOf(option).map((name) => [`${keyOf(path)} ${name}`, value] as const);
        }),
      ),
    ),
    entries(
      '_ebbtide_arguments',
      places.filter(({ argument }) => argument !== '').map(({ path, argument }) => [keyOf(path), argument]),
    ),
  ].join('\n');
}

/** A key of a shell array must not be empty. */
const keyOf = (path: string): string => (path === '' ? 'ebbtide' : `ebbtide ${path}`);

const quoted = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;

const bash = (places: readonly Place[]): string => `
declare -gA _ebbtide_verbs _ebbtide_options _ebbtide_values _ebbtide_arguments
_ebbtide_tables() {
${tables(places)}
}
_ebbtide_tables
unset -f _ebbtide_tables

_ebbtide() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD - 1]} path=ebbtide word value i
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=\${COMP_WORDS[i]}
    if [[ -n \${_ebbtide_values["$path $word"]-}\${_ebbtide_values["ebbtide $word"]-} ]]; then
      [[ \${COMP_WORDS[i + 1]-} == = ]] && ((i++))
      ((i++))
    elif [[ -n \${_ebbtide_verbs["$path $word"]+x} ]]; then
      path+=" $word"
    fi
  done
  # --option=value comes as three words.
  if [[ $cur == = ]]; then
    cur=
  elif [[ $prev == = ]]; then
    prev=\${COMP_WORDS[COMP_CWORD - 2]}
  fi
  value=\${_ebbtide_values["$path $prev"]-\${_ebbtide_values["ebbtide $prev"]-}}
  if [[ -z $value ]]; then
    if [[ $cur == -* ]]; then
      value=\${_ebbtide_options[ebbtide]}
      [[ $path == ebbtide ]] || value="\${_ebbtide_options[$path]} $value"
      COMPREPLY=($(compgen -W "$value" -- "$cur"))
      return
    fi
    value=\${_ebbtide_verbs[$path]:-\${_ebbtide_arguments[$path]-}}
  fi
  case $value in
    ${FILES})
      compopt -o filenames 2> /dev/null
      mapfile -t COMPREPLY < <(compgen -f -- "$cur")
      ;;
    ${ANY} | '') ;;
    *) COMPREPLY=($(compgen -W "$value" -- "$cur")) ;;
  esac
}
complete -F _ebbtide ebbtide
`;

const zsh = (places: readonly Place[]): string => `#compdef ebbtide

typeset -gA _ebbtide_verbs _ebbtide_options _ebbtide_values _ebbtide_arguments
() {
${tables(places)}
}

_ebbtide() {
  local cur=\${words[CURRENT]} prev=\${words[CURRENT - 1]} at=ebbtide word value i
  for ((i = 2; i < CURRENT; i++)); do
    word=\${words[i]}
    if [[ -n \${_ebbtide_values[$at $word]-}\${_ebbtide_values[ebbtide $word]-} ]]; then
      ((i++))
    elif [[ -n \${_ebbtide_verbs[$at $word]+x} ]]; then
      at+=" $word"
    fi
  done
  if [[ $cur == --*=* ]]; then
    prev=\${cur%%=*}
    compset -P '*='
  fi
  value=\${_ebbtide_values[$at $prev]-\${_ebbtide_values[ebbtide $prev]-}}
  if [[ -z $value ]]; then
    if [[ $cur == -* ]]; then
      value=\${_ebbtide_options[ebbtide]}
      [[ $at == ebbtide ]] || value="\${_ebbtide_options[$at]} $value"
      compadd -- \${(s: :)value}
      return
    fi
    value=\${_ebbtide_verbs[$at]:-\${_ebbtide_arguments[$at]-}}
  fi
  case $value in
    ${FILES}) _files ;;
    ${ANY} | '') ;;
    *) compadd -- \${(s: :)value} ;;
  esac
}
if [[ \${funcstack[1]} == _ebbtide ]]; then
  _ebbtide "$@"
else
  compdef _ebbtide ebbtide
fi
`;

// -------------------------------------------------------------------------------------------------------- fish

function fish(places: readonly Place[]): string {
  const lines = [
    '',
    '# The verbs so far, without options and what belongs to them.',
    'function __ebbtide_at',
    `    set -l valued ${valuedOptions(places).join(' ')}`,
    '    set -l path',
    '    set -l skip 0',
    '    for word in (commandline -opc)[2..-1]',
    '        if test $skip = 1',
    '            set skip 0',
    '        else if contains -- $word $valued',
    '            set skip 1',
    "        else if not string match -q -- '-*' $word",
    '            set -a path $word',
    '        end',
    '    end',
    '    set -l wanted (string split -n " " -- $argv[1])',
    '    set -l many (count $wanted)',
    '    test $many -eq 0',
    '    and return 0',
    '    test (count $path) -ge $many',
    '    and test "$path[1..$many]" = "$wanted"',
    'end',
    'function __ebbtide_needs_verb',
    '    __ebbtide_at $argv[1]',
    '    and not __ebbtide_has_verb $argv',
    'end',
    'function __ebbtide_has_verb',
    '    for verb in (string split -n " " -- $argv[2])',
    '        __ebbtide_at "$argv[1] $verb"',
    '        and return 0',
    '    end',
    '    return 1',
    'end',
    'complete -c ebbtide -f',
  ];
  for (const { path, verbs, options, argument } of places) {
    const names = verbs.map((verb) => verb.name()).join(' ');
    for (const verb of verbs) {
      const when = `__ebbtide_needs_verb ${quoted(path)} ${quoted(names)}`;
      lines.push(
        `complete -c ebbtide -n ${fishQuoted(when)} -a ${verb.name()} -d ${fishQuoted(verb.description())}`,
      );
    }
    const here = `__ebbtide_at ${quoted(path)}`;
    for (const option of options) {
      lines.push(`complete -c ebbtide -n ${fishQuoted(here)}${fishOption(option)}`);
    }
    if (argument === FILES) lines.push(`complete -c ebbtide -n ${fishQuoted(here)} -F`);
    else if (argument !== '')
      lines.push(`complete -c ebbtide -n ${fishQuoted(here)} -a ${fishQuoted(argument)}`);
  }
  return `${lines.join('\n')}\n`;
}

function fishOption(option: Option): string {
  const { short, long, description } = option;
  const value = valueOfOption(option);
  const names = [...(long ? [` -l ${long.slice(2)}`] : []), ...(short ? [` -s ${short.slice(1)}`] : [])].join(
    '',
  );
  const values =
    value === undefined
      ? ''
      : value === FILES
        ? ' -r -F'
        : value === ANY
          ? ' -x'
          : ` -x -a ${fishQuoted(value)}`;
  return `${names}${values} -d ${fishQuoted(description)}`;
}

const valuedOptions = (places: readonly Place[]): string[] => [
  ...new Set(
    places.flatMap(({ options }) =>
      options.filter((option) => valueOfOption(option) !== undefined).flatMap(namesOf),
    ),
  ),
];

const fishQuoted = (text: string): string => `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;
