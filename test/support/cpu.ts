/** Processor time of this process, which other programs on the machine do not add to as they do to the clock. */
export function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}
