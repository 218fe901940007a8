// An OpenID Connect provider that is not ours (oidc-provider), for
// provider_test.go: prints its address when it listens. Everybody's password is
// right; the groups of people are given with their names.
import { createServer } from "node:https";
import { readFileSync } from "node:fs";
import Provider from "oidc-provider";

const { CERTIFICATE, KEY, REDIRECT, SIGNED_OUT, SECRET } = process.env;
const people = JSON.parse(process.env.PEOPLE);
const client = (client_id) => ({
  client_id, client_secret: SECRET, redirect_uris: [REDIRECT], post_logout_redirect_uris: [SIGNED_OUT], grant_types: ["authorization_code"], response_types: ["code"],
});
const server = createServer({ cert: readFileSync(CERTIFICATE), key: readFileSync(KEY) });
server.listen(0, "127.0.0.1", () => {
  const issuer = "https://127.0.0.1:" + server.address().port;
  const provider = new Provider(issuer, {
    clients: [client("bulwark"), client("another")],
    claims: { openid: ["sub"], profile: ["preferred_username", "groups"] },
    pkce: { required: () => true },
    findAccount: (_, sub) => ({ accountId: sub, claims: () => ({ sub, preferred_username: sub, groups: people[sub] }) }),
  });
  server.on("request", provider.callback());
  console.log(issuer);
});
