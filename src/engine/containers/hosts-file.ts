/** The text of a container's /etc/hosts, in docker's order: loopback, multicast names, extra hosts, own addresses. Pure. */

/** Builds the file. */
export function hostsFile(options: {
  readonly own: readonly string[];
  readonly hostname: string;
  readonly domainname: string;
  readonly extra: readonly { readonly ip: string; readonly names: string }[];
}): string {
  const lines = [
    '127.0.0.1\tlocalhost',
    '::1\tlocalhost ip6-localhost ip6-loopback',
    'fe00::\tip6-localnet',
    'ff00::\tip6-mcastprefix',
    'ff02::1\tip6-allnodes',
    'ff02::2\tip6-allrouters',
    ...options.extra.map(({ ip, names: extra }) => `${ip}\t${extra}`),
    ...hostLines(options.own, options.hostname, options.domainname),
  ];
  return `${lines.join('\n')}\n`;
}

/** Lines that name the container at its own addresses. */
export function hostLines(own: readonly string[], hostname: string, domainname: string): string[] {
  const names = domainname === '' ? hostname : `${hostname}.${domainname} ${hostname}`;
  return own.map((ip) => `${ip}\t${names}`);
}

/** Removes lines by address or by first name, then adds lines at the end; everything else stays as it is. */
export function changeHosts(
  content: string,
  change: { readonly remove?: readonly string[]; readonly removeNamed?: string; readonly add?: readonly string[] },
): string {
  const { remove = [], removeNamed, add = [] } = change;
  const kept = content.split('\n').filter((line) => {
    const [address = '', name] = line.trim().split(/\s+/);
    return !remove.includes(address) && (removeNamed === undefined || name !== removeNamed);
  });
  while (kept.at(-1) === '') kept.pop();
  return `${[...kept, ...add].join('\n')}\n`;
}
