// What pages are built of.
export { Button, ButtonLink, IconButton } from "./button";
export { Confirm, Dialog } from "./dialog";
export { Check, Field, Select, TextArea, TextInput } from "./field";
export { type Format, useFormat } from "./format";
export { Icon, type IconName } from "./icons";
export { Page } from "./page";
export { Panel } from "./panel";
export { type Column, Table } from "./table";
export { Tabs } from "./tabs";
export { useToast } from "./toast";
export {
  Badge,
  CopyButton,
  Empty,
  ErrorNote,
  Note,
  Progress,
  Snippet,
  Stat,
  type Tone,
  useErrorText,
  Waiting,
} from "./told";
