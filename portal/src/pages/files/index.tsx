import { useText } from "../../i18n";
import { Page } from "../../ui";

export default function FilesPage() {
  const t = useText();
  return <Page title={t("files.title")}>{null}</Page>;
}
