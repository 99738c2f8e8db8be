// The TypeScript SDK's client (1.x) through the features of `server.py`; see `sdk.py` for its argument and what it prints.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { CreateMessageRequestSchema, ElicitRequestSchema } from "@modelcontextprotocol/sdk/types.js";

const plan = JSON.parse(process.argv[2]);
const prefix = plan.prefix ?? "";

function say(step, value) {
  const text = JSON.stringify([step, value]);
  process.stdout.write((prefix ? text.replaceAll(prefix, "") : text) + "\n");
}

async function tried(step, work) {
  try {
    say(step, await work());
  } catch (fault) {
    say(step, { raised: fault.constructor.name, code: fault.code, text: String(fault.message) });
  }
}

const client = new Client(
  { name: "typescript", version: "1" },
  { capabilities: { elicitation: {}, sampling: {} } },
);
client.setRequestHandler(ElicitRequestSchema, (request) => {
  say("elicited", request.params.message);
  return { action: "accept", content: { name: "Ada" } };
});
client.setRequestHandler(CreateMessageRequestSchema, (request) => {
  say("sampled", request.params.messages[0].content.text);
  return { role: "assistant", content: { type: "text", text: "forty-two" }, model: "none" };
});

const transport = plan.command
  ? new StdioClientTransport({ command: plan.command[0], args: plan.command.slice(1), stderr: "inherit" })
  : new StreamableHTTPClientTransport(new URL(plan.url), { requestInit: { headers: plan.headers ?? {} } });
const options = { timeout: 30000 };

try {
  await client.connect(transport, options);
  // Listing first makes the client compile the output schemas: from then on it validates every structuredContent.
  await tried("tools", () => client.listTools({}, options));
  const call = (name, args, more) =>
    tried(name, () => client.callTool({ name: prefix + name, arguments: args }, undefined, { ...options, ...more }));
  if (plan.calls) {
    for (const [name, args] of plan.calls) await call(name, args);
  } else {
    await tried("prompts", () => client.listPrompts({}, options));
    await tried("resources", () => client.listResources({}, options));
    await tried("templates", () => client.listResourceTemplates({}, options));
    await call("echo", { text: "\u00e4 \u2028" });
    await call("add", { a: 2, b: 3 });
    await call("fail", { why: "because" });
    await call("forbidden", { a: 1 });
    await call("nothing", {});
    await call("count", { steps: 3 }, { onprogress: (progress) => say("progress", progress) });
    await call("ask", {});
    await call("sample", {});
    await tried("read", () => client.readResource({ uri: "note://one" }, options));
    await tried("prompt", () => client.getPrompt({ name: prefix + "greet", arguments: { name: "Ada" } }, options));
    const abort = new AbortController();
    const waiting = client.callTool({ name: prefix + "wait", arguments: { name: plan.name } }, undefined, {
      signal: abort.signal,
      ...options,
    });
    await new Promise((resolve) => setTimeout(resolve, 500));
    abort.abort("enough");
    await waiting.catch(() => undefined);
    await call("was_cancelled", { name: plan.name });
  }
  if (transport.terminateSession) await tried("end", () => transport.terminateSession());
} catch (fault) {
  say("connection", `${fault.constructor.name}: ${fault.message}`);
}
await client.close();
