/** Messages of the transfer services inside an Any, by their type. Pure. */
import { invalidArgument } from '../../errors.js';
import type { AnyMessage } from '../messages/messages.js';
import { codecOf } from '../schema.js';

/** The full name of the type: what follows the last slash, if there is one. */
export const typeOf = ({ typeUrl }: AnyMessage): string => typeUrl.slice(typeUrl.lastIndexOf('/') + 1);

export const anyOf = (type: string, message: object): AnyMessage => ({
  typeUrl: type,
  value: codecOf(type).encode(message),
});

/** InvalidArgument: of another type, or damaged. */
export function messageIn<T>(type: string, any: AnyMessage): T {
  if (typeOf(any) !== type)
    throw invalidArgument(`a message of type "${typeOf(any)}" where ${type} is expected`);
  // An empty one is a list, not bytes.
  const { buffer, byteOffset, length } = any.value.length === 0 ? Buffer.alloc(0) : any.value;
  try {
    return codecOf<T>(type).decode(Buffer.from(buffer, byteOffset, length));
  } catch (error) {
    throw invalidArgument(`a message of type ${type} cannot be read: ${(error as Error).message}`);
  }
}
