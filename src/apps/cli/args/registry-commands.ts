/** The commands of `gantry registry`, in the packed form of commands-data.ts: a header line, then one line a flag. */

const ROOT_FLAG = 'root\t\tstring\t/var/lib/gantry-registry\t\tdirectory of the registry';
const GRACE_FLAG =
  'gc-grace\t\tduration\t1h0m0s\t\ttime for which a pushed, mounted or requested blob is kept without a manifest';
const UNTAGGED_FLAG =
  'delete-untagged-after\t\tduration\t0s\t\tcollect manifests without a tag after this time (0 keeps them)';

export const REGISTRY_COMMANDS: Readonly<Record<string, string>> = {
  registry: 'registry\t\t\t\tgroup: registries',
  'registry serve': [
    'registry serve [OPTIONS]\t\t\t\tserve a registry for images and other OCI artifacts',
    'auth\t\tstring\t\t\tauthentication: none, basic, token or external (default basic with --htpasswd, else none)',
    'config\t\tstring\t\t\tJSON file with these options (in camelCase), quotas and webhooks',
    UNTAGGED_FLAG,
    'external-url\t\tstring\t\t\tURL under which clients reach the registry (default by the Host of each request)',
    GRACE_FLAG,
    'gc-interval\t\tduration\t1h0m0s\t\ttime between garbage collections (0 for none)',
    'htpasswd\t\tstring\t\t\tfile of users with bcrypt hashes (htpasswd -B)',
    'listen\t\tstring\t127.0.0.1:5000\t\taddress to listen on',
    'log-level\t\tstring\tinfo\t\tset the logging level (debug, info, warn, error)',
    'max-blob-size\t\tbytes\t107374182400\t\tlargest blob that is taken',
    'proxy-password-file\t\tstring\t\t\tfile with the password for the upstream',
    'proxy-remote-url\t\tstring\t\t\tserve as a pull-through cache of this registry',
    'proxy-ttl\t\tduration\t168h0m0s\t\ttime for which a cached image nobody asks for is kept (0 for ever)',
    'proxy-username\t\tstring\t\t\tuser at the upstream',
    'quota\t\tbytes\t0\t\tlargest size of all blobs together (0 for none)',
    'read-only\t\tbool\t\t\trefuse everything that writes',
    'realm\t\tstring\tRegistry\t\tname shown when a password is asked for',
    'rights\t\tstring\t\t\tJSON file saying who may pull, push and delete what',
    ROOT_FLAG,
    'tls-cert\t\tstring\t\t\tcertificate file (PEM)',
    'tls-key\t\tstring\t\t\tkey file (PEM)',
    'token-issuer\t\tstring\t\t\tissuer of external tokens',
    'token-keys\t\tstring\t\t\tpublic key (PEM) or key set (JWKS) of external tokens',
    'token-realm\t\tstring\t\t\tURL of the external token endpoint',
    'token-service\t\tstring\tgantry-registry\t\tname of this service in tokens',
    'upload-expiry\t\tduration\t24h0m0s\t\ttime after which an upload without activity is removed',
  ].join('\n'),
  'registry gc': [
    'registry gc [OPTIONS]\t\t\t\tremove what no manifest needs, also while the registry is being served',
    UNTAGGED_FLAG,
    GRACE_FLAG,
    ROOT_FLAG,
  ].join('\n'),
  'registry fsck': [
    'registry fsck [OPTIONS]\t\t\t\tcheck that everything a registry has recorded is there and whole',
    'deep\t\tbool\t\t\tread every blob and check its digest',
    ROOT_FLAG,
  ].join('\n'),
};
