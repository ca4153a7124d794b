/** The text of a container's /etc/hosts, in docker's order: loopback, multicast names, extra hosts, own addresses. */

/** Builds the file. */
export function hostsFile(options: {
  readonly own: readonly string[];
  readonly hostname: string;
  readonly domainname: string;
  readonly extra: readonly { readonly ip: string; readonly names: string }[];
}): string {
  const names =
    options.domainname === '' ? options.hostname : `${options.hostname}.${options.domainname} ${options.hostname}`;
  const lines = [
    '127.0.0.1\tlocalhost',
    '::1\tlocalhost ip6-localhost ip6-loopback',
    'fe00::\tip6-localnet',
    'ff00::\tip6-mcastprefix',
    'ff02::1\tip6-allnodes',
    'ff02::2\tip6-allrouters',
    ...options.extra.map(({ ip, names: extra }) => `${ip}\t${extra}`),
    ...options.own.map((ip) => `${ip}\t${names}`),
  ];
  return `${lines.join('\n')}\n`;
}
