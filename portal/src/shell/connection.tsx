import { onlineManager, useQueryClient } from "@tanstack/react-query";
import { useEffect, useState } from "react";
import { ApiError } from "../api/http";
import { useText } from "../i18n";
import { Note } from "../ui";
import styles from "./shell.module.css";

/** Says that the server does not answer, from the first failed question to the next answered one. */
export function ConnectionNote() {
  const t = useText();
  const lost = useLost();
  return (
    <div role="status">
      {lost && (
        <div className={styles.connection}>
          <Note tone="warn">{t("common.reconnecting")}</Note>
        </div>
      )}
    </div>
  );
}

function useLost(): boolean {
  const client = useQueryClient();
  const [lost, setLost] = useState(false);
  useEffect(() => {
    onlineManager.setOnline(true);
    return client.getQueryCache().subscribe((event) => {
      if (event.type !== "updated") return;
      const { type } = event.action;
      if (type === "success") setLost(false);
      if (type === "failed" || type === "error") {
        const error = event.action.error as unknown;
        if (error instanceof ApiError) setLost(error.away);
      }
    });
  }, [client]);
  return lost;
}
