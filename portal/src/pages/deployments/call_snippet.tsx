import { useState } from "react";
import { Link } from "wouter";
import { useText } from "../../i18n";
import { Snippet, Tabs } from "../../ui";
import styles from "./deployments.module.css";

type Way = "python" | "azure" | "curl";
const WAYS: { name: Way; label: string }[] = [
  { name: "python", label: "Python" },
  { name: "azure", label: "AzureOpenAI" },
  { name: "curl", label: "curl" },
];

/** How a program calls the deployment. */
export function CallSnippet({ name }: { name: string }) {
  const t = useText();
  const [way, setWay] = useState<Way>("python");
  return (
    <details className={styles.call}>
      <summary>{t("deployments.how_to_call")}</summary>
      <Tabs label={t("deployments.how_to_call")} tabs={WAYS} chosen={way} onChoose={setWay}>
        <Snippet code={CODE[way](name, location.origin)} label={t("deployments.code", { name })} />
        <Link href="/keys" className="small">
          {t("deployments.key_hint")}
        </Link>
      </Tabs>
    </details>
  );
}

const CODE: Record<Way, (name: string, origin: string) => string> = {
  python: (name, origin) => `from openai import OpenAI

client = OpenAI(base_url="${origin}/v1")  # OPENAI_API_KEY: a key of this server
answer = client.chat.completions.create(
    model=${JSON.stringify(name)},
    messages=[{"role": "user", "content": "Hello"}],
)
print(answer.choices[0].message.content)`,
  azure: (name, origin) => `from openai import AzureOpenAI

client = AzureOpenAI(  # AZURE_OPENAI_API_KEY: a key of this server
    azure_endpoint="${origin}",
    api_version="2024-10-21",
)
answer = client.chat.completions.create(
    model=${JSON.stringify(name)},
    messages=[{"role": "user", "content": "Hello"}],
)
print(answer.choices[0].message.content)`,
  curl: (name, origin) => `curl ${origin}/v1/chat/completions \\
  -H "Authorization: Bearer $OPENAI_API_KEY" \\
  -H "Content-Type: application/json" \\
  -d ${shellQuoted(JSON.stringify({ model: name, messages: [{ role: "user", content: "Hello" }] }))}`,
};

const shellQuoted = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;
