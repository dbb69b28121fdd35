/** `node dist/test/conformance/abuse/attacker.js ADDRESS ATTACK`: one attack, in a process of its own, until it is killed. */
import { attacks } from './attacks.js';

const [address, name] = process.argv.slice(2);
const attack = attacks[name ?? ''];
if (address === undefined || attack === undefined) throw new Error(`no attack is called ${name}`);
await attack(address);
