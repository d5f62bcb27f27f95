// API keys: who may call, and taking that back. A secret is shown once, when its key is made.

import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { get } from "../../api/http";
import { useSession } from "../../api/session";
import type { ApiKey, List } from "../../api/types";
import { useText } from "../../i18n";
import { Badge, Button, type Column, ErrorNote, Page, Table, Waiting, When } from "../../ui";
import { CreateKey } from "./create_key";
import { KEYS } from "./key";
import { RevokeKey } from "./revoke_key";

export default function KeysPage() {
  const t = useText();
  const [creating, setCreating] = useState(false);
  const [revoking, setRevoking] = useState<ApiKey | null>(null);
  return (
    <Page
      title={t("keys.title")}
      text={t("keys.text")}
      actions={
        <Button kind="primary" icon="plus" onClick={() => setCreating(true)}>
          {t("keys.create")}
        </Button>
      }
    >
      <Keys onRevoke={setRevoking} />
      {creating && <CreateKey onClose={() => setCreating(false)} />}
      {revoking && <RevokeKey apiKey={revoking} onClose={() => setRevoking(null)} />}
    </Page>
  );
}

function Keys({ onRevoke }: { onRevoke: (key: ApiKey) => void }) {
  const t = useText();
  const session = useSession();
  const keys = useQuery({ queryKey: ["keys"], queryFn: ({ signal }) => get<List<ApiKey>>(KEYS, signal) });
  if (keys.error && !keys.data) return <ErrorNote error={keys.error} onRetry={() => keys.refetch()} />;
  if (!keys.data) return <Waiting />;
  const mine = session.data?.key_id;
  const columns: Column<ApiKey>[] = [
    {
      key: "name",
      header: t("keys.name"),
      wide: true,
      cell: (key) => (
        <span className="row">
          <strong className="said">{key.name}</strong>
          {key.id === mine && <Badge tone="good">{t("keys.yours")}</Badge>}
        </span>
      ),
    },
    { key: "shown", header: t("keys.shown"), cell: (key) => <code>{key.shown}…</code> },
    { key: "created", header: t("keys.created"), cell: (key) => <When seconds={key.created_at} /> },
    {
      key: "state",
      header: t("keys.state"),
      cell: (key) =>
        key.revoked_at === null ? (
          <Badge tone="good">{t("keys.active")}</Badge>
        ) : (
          <span className="row">
            <Badge>{t("keys.revoked")}</Badge>
            <When seconds={key.revoked_at} />
          </span>
        ),
    },
    {
      key: "deeds",
      header: t("keys.deeds"),
      align: "end",
      cell: (key) =>
        key.revoked_at === null && (
          <Button kind="danger" onClick={() => onRevoke(key)} aria-label={t("keys.revoke_named", { name: key.name })}>
            {t("keys.revoke")}
          </Button>
        ),
    },
  ];
  return <Table label={t("keys.title")} columns={columns} rows={ordered(keys.data.data)} rowKey={(key) => key.id} />;
}

/** Those that work first, the newest of each first. */
function ordered(keys: ApiKey[]): ApiKey[] {
  const rank = (key: ApiKey) => (key.revoked_at === null ? 0 : 1);
  return [...keys].sort((one, other) => rank(one) - rank(other) || other.created_at - one.created_at);
}
